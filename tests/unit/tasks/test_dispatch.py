"""What becomes of a delivery of ``torch.run``: each row of the table, and where one row ends and the next begins."""

from __future__ import annotations

from typing import Any

import pytest

from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import now
from torch_tasks.model.handover import Handover
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import (
    ENDED,
    HELD,
    NOT_BEGUN,
    Failure,
    FailureKind,
    Priority,
    TaskRecord,
    TaskResult,
    TaskSpec,
    TaskState,
)
from torch_tasks.store.task_outcomes import Take
from torch_tasks.tasks.dispatch import (
    PASSES,
    SOON,
    Act,
    Arrival,
    Decision,
    Ending,
    EndOfTry,
    Reach,
    on_arrival,
    on_end,
    on_reach,
    should_look_for_others,
)

OWN_QUEUE, ANY_QUEUE = "torch.agent.dev-1", "torch.developer.any"


def agent(agent_id: str = "dev-1", **fields: Any) -> AgentInfo:
    """A developer that is free."""
    known = {"agent_id": agent_id, "role": "developer", "kind": "shell", "node": "n", "pid": 1, "host": "h"}
    rest = {"incarnation": 1, "workdir": "/", "tmux_socket": "/t", "started_at": now(), "status": "active"}
    return AgentInfo.model_validate(known | rest | {"state": "ready"} | fields)


def spec(**fields: Any) -> TaskSpec:
    """What the message asks for: any developer, urgently."""
    asked: dict[str, Any] = {"id": "t", "prompt": "x", "role": "developer", "priority": "urgent"}
    return TaskSpec.build(**asked | fields)


def record(state: TaskState = TaskState.QUEUED, asked: TaskSpec | None = None, **fields: Any) -> TaskRecord:
    """What the fleet knows of the task: it waits."""
    whole = asked or spec()
    return TaskRecord(spec=whole, state=state, queue=queue_for(whole), created_at=now(), **fields)


def arrival(known: TaskRecord | None = None, **fields: Any) -> Arrival:
    """The task comes to an agent that is free."""
    return Arrival(**{"asked": spec(), "record": known or record(), "agent": agent(), **fields})


# ── a delivery comes ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_waits_for_other_tasks_is_set_aside() -> None:
    for asked in (spec(), spec(agent="dev-2")):
        assert on_arrival(arrival(record(TaskState.PENDING, asked))) == Decision(Act.SET_ASIDE)


@pytest.mark.parametrize("state", sorted(set(TaskState) - ENDED - {TaskState.PENDING}))
def test_a_free_agent_reaches_for_what_has_not_ended(state: TaskState) -> None:
    assert on_arrival(arrival(record(state))) == Decision(Act.TAKE)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_the_end_of_a_task_is_reported_again_to_whoever_gets_it(state: TaskState) -> None:
    other = spec(agent="dev-2")
    assert on_arrival(arrival(record(state))) == Decision(Act.REPORT)
    assert on_arrival(arrival(record(state, other))) == Decision(Act.REPORT)


@pytest.mark.parametrize(
    ("fields", "decision"),
    [
        # nothing in the pane
        ({}, Decision(Act.TAKE)),
        ({"held": "paused by operator"}, Decision(Act.GIVE_BACK, note="not begun: paused by operator")),
        ({"retiring": True}, Decision(Act.SEND_ON, ANY_QUEUE, Priority.URGENT)),
        ({"retiring": True, "held": "paused"}, Decision(Act.SEND_ON, ANY_QUEUE, Priority.URGENT)),
        # this very task in the pane
        ({"unfinished": "t"}, Decision(Act.TAKE)),
        ({"unfinished": "t", "held": "paused"}, Decision(Act.TAKE)),
        ({"unfinished": "t", "retiring": True}, Decision(Act.TAKE)),
        # another task in the pane
        ({"unfinished": "other"}, Decision(Act.PUT_ASIDE, seconds=SOON)),
        ({"unfinished": "other", "held": "paused"}, Decision(Act.PUT_ASIDE, seconds=SOON)),
        ({"unfinished": "other", "retiring": True}, Decision(Act.SEND_ON, ANY_QUEUE, Priority.URGENT)),
    ],
)
def test_what_is_in_the_pane_comes_first_and_a_held_or_retiring_agent_begins_nothing(
    fields: dict[str, Any], decision: Decision
) -> None:
    assert on_arrival(arrival(**fields)) == decision


@pytest.mark.parametrize("fields", [{"unfinished": "other"}, {"held": "paused"}, {"retiring": True}])
def test_an_agent_that_begins_nothing_does_not_even_report_an_end(fields: dict[str, Any]) -> None:
    assert on_arrival(arrival(record(TaskState.SUCCEEDED), **fields)).act is not Act.REPORT


@pytest.mark.parametrize("state", sorted(NOT_BEGUN - {TaskState.PENDING}))
def test_what_the_record_asks_of_another_agent_is_sent_to_where_that_one_reads(state: TaskState) -> None:
    for asked, queue in [(spec(agent="dev-2"), "torch.agent.dev-2"), (spec(role="qa"), "torch.qa.any")]:
        assert on_arrival(arrival(record(state, asked))) == Decision(Act.SEND_ON, queue, Priority.URGENT)


@pytest.mark.parametrize("state", sorted(HELD))
def test_a_begun_task_is_reached_for_whomever_it_asks_for(state: TaskState) -> None:
    """Only the broker can tell whether its owner lives."""
    assert on_arrival(arrival(record(state, spec(agent="dev-2"), agent="dev-2", attempts=1))) == Decision(Act.TAKE)


FAILED_HERE = {"agent": "dev-1", "attempts": 1}
FREE, BUSY = agent("dev-2"), agent("dev-3", state="working", load=1)


@pytest.mark.parametrize(
    ("known", "others", "times_passed", "act"),
    [
        (record(**FAILED_HERE), [FREE], 0, Act.LEAVE_TO_OTHERS),
        (record(**FAILED_HERE), [BUSY, FREE], PASSES - 1, Act.LEAVE_TO_OTHERS),
        (record(**FAILED_HERE), [FREE], PASSES, Act.TAKE),
        (record(**FAILED_HERE), [BUSY], 0, Act.TAKE),
        (record(**FAILED_HERE), [agent()], 0, Act.TAKE),
        (record(**FAILED_HERE), [], 0, Act.TAKE),
        # it failed elsewhere, or its tries do not count
        (record(agent="dev-2", attempts=1), [FREE], 0, Act.TAKE),
        (record(agent="dev-1", attempts=2, tries_before=2), [FREE], 0, Act.TAKE),
        (record(agent="dev-1", attempts=3, tries_before=2), [FREE], 0, Act.LEAVE_TO_OTHERS),
        # no other agent may do it
        (record(asked=spec(agent="dev-1"), **FAILED_HERE), [FREE], 0, Act.TAKE),
    ],
)
def test_an_agent_that_failed_at_it_leaves_it_to_a_free_one_but_not_for_ever(
    known: TaskRecord, others: list[AgentInfo], times_passed: int, act: Act
) -> None:
    decision = on_arrival(arrival(known, others=others, times_passed=times_passed))
    assert decision == Decision(act, seconds=SOON if act is Act.LEAVE_TO_OTHERS else 0.0)


def handed_over(owner: str = "dev-1", attempt: int = 1) -> Handover:
    """To any other developer."""
    return Handover(by="operator", owner=owner, to="developer", attempt=attempt)


@pytest.mark.parametrize(
    ("known", "others", "act"),
    [
        (record(attempts=1, handover=handed_over()), [BUSY], Act.LEAVE_TO_OTHERS),
        (record(attempts=1, handover=handed_over()), [agent(), BUSY], Act.LEAVE_TO_OTHERS),
        (record(attempts=1, handover=handed_over()), [agent()], Act.TAKE),
        (record(attempts=1, handover=handed_over("dev-2")), [BUSY], Act.TAKE),
        (record(attempts=2, handover=handed_over()), [BUSY], Act.TAKE),
        (record(asked=spec(agent="dev-1"), attempts=1, handover=handed_over()), [BUSY], Act.TAKE),
    ],
)
def test_an_agent_that_handed_it_over_leaves_it_to_any_other_however_often(
    known: TaskRecord, others: list[AgentInfo], act: Act
) -> None:
    assert on_arrival(arrival(known, others=others, times_passed=PASSES)).act is act


def test_others_are_looked_for_only_where_they_count() -> None:
    assert not should_look_for_others(record(), agent())
    assert should_look_for_others(record(**FAILED_HERE), agent())
    assert should_look_for_others(record(attempts=1, handover=handed_over()), agent())
    assert not should_look_for_others(record(asked=spec(agent="dev-1"), **FAILED_HERE), agent())
    for state in ENDED | HELD:
        assert not should_look_for_others(record(state, **FAILED_HERE), agent())


# ── the agent has reached for the task ───────────────────────────────────────────────────────────────────────────────


def reach(outcome: Take, known: TaskRecord, owner: str = "") -> Decision:
    """What follows when dev-1 reached for it."""
    return on_reach(Reach(outcome=outcome, owner=owner, record=known, agent=agent()))


@pytest.mark.parametrize("outcome", [Take.TAKEN, Take.MINE, Take.TAKEN_OVER])
def test_what_is_the_agents_now_is_done(outcome: Take) -> None:
    assert reach(outcome, record(TaskState.ASSIGNED, agent="dev-1", attempts=1)) == Decision(Act.DO)


def test_what_another_agent_owns_goes_first_of_all_to_that_agents_queue() -> None:
    known = record(TaskState.RUNNING, spec(priority="low"), agent="dev-2", attempts=1)
    assert reach(Take.OWNED, known, "dev-2") == Decision(Act.SEND_TO_OWNER, "torch.agent.dev-2", Priority.URGENT)


def test_what_ended_meanwhile_is_reported() -> None:
    assert reach(Take.ENDED, record(TaskState.CANCELLED)) == Decision(Act.REPORT)


@pytest.mark.parametrize(
    ("asked", "handover", "act"),
    [
        (spec(agent="dev-2"), handed_over("dev-3"), Act.RELEASE),
        (spec(role="qa"), handed_over("dev-3"), Act.RELEASE),
        (spec(), handed_over("dev-3"), Act.DO),
        (spec(agent="dev-1"), handed_over("dev-3"), Act.DO),
        (spec(agent="dev-2"), handed_over("dev-3", attempt=2), Act.DO),
        (spec(agent="dev-2"), None, Act.DO),
    ],
)
def test_what_was_handed_over_at_the_moment_of_the_reach_goes_to_the_successor(
    asked: TaskSpec, handover: Handover | None, act: Act
) -> None:
    known = record(TaskState.ASSIGNED, asked, agent="dev-1", attempts=2, handover=handover)
    decision = reach(Take.TAKEN, known)
    assert decision.act is act
    if act is Act.RELEASE:
        note = "handed over to developer"
        assert decision == Decision(act, queue_for(asked), Priority.URGENT, state=TaskState.QUEUED, note=note)


# ── a try has ended ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ending", "queue", "state", "note"),
    [
        (Ending.LIMITED, ANY_QUEUE, TaskState.PARKED, "until noon"),
        (Ending.HELD, ANY_QUEUE, TaskState.QUEUED, "given back: until noon"),
        (Ending.HANDED_OVER, ANY_QUEUE, TaskState.QUEUED, "handed over to developer"),
    ],
)
def test_what_the_agent_let_go_of_goes_to_whoever_is_able(
    ending: Ending, queue: str, state: TaskState, note: str
) -> None:
    known = record(TaskState.RUNNING, agent="dev-1", attempts=1, handover=handed_over())
    decision = on_end(EndOfTry(ending, known, agent(), "until noon"))
    assert decision == Decision(Act.RELEASE, queue, Priority.URGENT, state=state, note=note)


def test_what_the_pane_works_on_goes_first_of_all_to_the_agents_next_worker() -> None:
    known = record(TaskState.RUNNING, spec(priority="low"), agent="dev-1", attempts=1)
    decision = on_end(EndOfTry(Ending.DETACHED, known, agent()))
    assert decision == Decision(Act.SEND_ON, OWN_QUEUE, Priority.URGENT)


def ended(kind: FailureKind | None, attempts: int, *, own: int | None = None, before: int = 0) -> Decision:
    """A try that came to a result, of a task with so many retries of its own, in a fleet that allows two."""
    known = record(TaskState.RUNNING, spec(max_retries=own), agent="dev-1", attempts=attempts, tries_before=before)
    failure = Failure(kind=kind, message="no luck") if kind else None
    status = TaskState.FAILED if kind else TaskState.SUCCEEDED
    result = TaskResult(task_id="t", status=status, attempts=attempts, error=failure)
    return on_end(EndOfTry(Ending.RESULT, known, agent(), result=result, max_retries=2))


RETRIED = [kind for kind in FailureKind if kind.worth_retrying]


def test_a_success_is_written_down() -> None:
    assert ended(None, 1) == Decision(Act.FINISH)


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - set(RETRIED)))
def test_a_failure_that_would_come_again_is_final(kind: FailureKind) -> None:
    assert ended(kind, 1) == Decision(Act.FINISH)


@pytest.mark.parametrize("kind", RETRIED)
@pytest.mark.parametrize(
    ("attempts", "own", "before", "act"),
    [
        (1, None, 0, Act.RETRY),
        (2, None, 0, Act.RETRY),
        (3, None, 0, Act.BURY),
        (3, 3, 0, Act.RETRY),
        (4, 3, 0, Act.BURY),
        (1, 0, 0, Act.BURY),
        (5, None, 3, Act.RETRY),
        (6, None, 3, Act.BURY),
    ],
)
def test_a_task_that_is_not_to_blame_is_tried_again_until_no_retry_is_left(
    kind: FailureKind, attempts: int, own: int | None, before: int, act: Act
) -> None:
    decision = ended(kind, attempts, own=own, before=before)
    assert decision.act is act
    if act is Act.RETRY:
        assert (decision.queue, decision.state) == (ANY_QUEUE, TaskState.QUEUED)
        assert (decision.note, decision.tries) == (f"attempt {attempts}: no luck", attempts - before)

"""What a person has to do, and what has been blocked, from what is known of agents, nodes and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from torch_tasks.model.agent import AgentInfo, AgentState, AgentStatus
from torch_tasks.model.budget import BudgetLine
from torch_tasks.model.checkin import Checkin, CheckinRecord, CheckinState, Every, Fire, SlotOutcome, Target
from torch_tasks.model.message import Message, MessageKind, MessageRecord, MessageState
from torch_tasks.model.task import HistoryEntry, Question, TaskRecord, TaskSpec, TaskState
from torch_tasks.orchestration.attention import (
    NeedKind,
    WaitingTask,
    blockage_of_waiting,
    blockages_reported,
    checkin_needs,
    dead_need,
    held_up_needs,
    limited_need,
    obstacle_in,
    over_budget_needs,
    question_need,
    unroutable_need,
)
from torch_tasks.store.task_outcomes import Outline
from torch_tasks.tasks.requests import waiting_since

THEN = datetime(2026, 3, 1, 9, tzinfo=UTC)


def agent(state: AgentState = AgentState.READY, *, online: bool = True) -> AgentInfo:
    return AgentInfo(
        agent_id="dev-1",
        role="developer",
        kind="claude",
        node="a",
        host="a",
        pid=1,
        incarnation=1,
        workdir="/",
        tmux_socket="/t",
        started_at=THEN,
        state=state,
        status=AgentStatus.ACTIVE if online else AgentStatus.OFFLINE,
    )


def waiting(question: Question | None, note: str | None = None) -> WaitingTask:
    record = TaskRecord(
        spec=TaskSpec(id="t1", prompt="push it"),
        state=TaskState.WAITING,
        queue="torch.any.any",
        created_at=THEN,
        question=question,
        note=note,
    )
    return WaitingTask(agent(AgentState.WAITING), record, THEN)


ASKED = Question(text="May I push?", choices=("yes", "no"))


def test_a_question_is_a_need_and_another_wait_is_none() -> None:
    need = question_need(waiting(ASKED))
    assert need
    assert (need.kind, need.id) == (NeedKind.QUESTION, f"question t1 {THEN.isoformat()}")
    assert need.text == "dev-1 asks in task t1: May I push? (1 yes | 2 no)"
    assert question_need(waiting(None, "a peer's answer")) is None


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (waiting(ASKED), "Its task t1 waits: May I push?\nChoices: 1 yes | 2 no\n"),
        (waiting(Question(text="Why?")), "Its task t1 waits: Why?\nAnswer"),
        (waiting(None, "a peer's answer"), "Its task t1 waits: a peer's answer\nAnswer"),
        (waiting(None), "Its task t1 waits: it does not say for what\nAnswer"),
    ],
)
def test_a_task_that_waits_is_blocked_by_what_it_waits_for(task: WaitingTask, says: str) -> None:
    blocked = blockage_of_waiting(task)
    assert blocked.text.startswith(says)
    assert (blocked.agent, blocked.subject, blocked.since) == ("dev-1", "t1", THEN)
    assert blocked.message_id == blockage_of_waiting(task).message_id
    assert blocked.message_id != blocked._replace(since=THEN + timedelta(seconds=1)).message_id


def entry(minute: int, state: TaskState, note: str | None = None) -> HistoryEntry:
    return HistoryEntry(at=THEN + timedelta(minutes=minute), state=state, note=note)


@pytest.mark.parametrize(
    ("history", "minute"),
    [
        ([], None),
        ([entry(0, TaskState.RUNNING)], None),
        ([entry(0, TaskState.RUNNING), entry(1, TaskState.WAITING, "a")], 1),
        ([entry(1, TaskState.WAITING, "a"), entry(2, TaskState.WAITING, "a")], 1),
        ([entry(1, TaskState.WAITING, "a"), entry(2, TaskState.WAITING, "b")], 2),
        ([entry(1, TaskState.WAITING, "a"), entry(2, TaskState.RUNNING), entry(3, TaskState.WAITING, "a")], 3),
    ],
)
def test_a_task_waits_since_it_first_waited_for_the_same_thing(
    history: Sequence[HistoryEntry], minute: int | None
) -> None:
    assert waiting_since(history) == (None if minute is None else THEN + timedelta(minutes=minute))


@pytest.mark.parametrize(
    ("status", "obstacle"),
    [
        ("Completed: a\nCurrent: b\nBlocked: the key is missing", "the key is missing"),
        ("BLOCKED:no budget. ", "no budget."),
        ("Completed: a\nBlocked: None.", ""),
        ("Blocked: n/a", ""),
        ("Blocked:", ""),
        ("Unblocked: the key", ""),
        ("", ""),
    ],
)
def test_a_status_says_what_blocks_its_sender(status: str, obstacle: str) -> None:
    assert obstacle_in(status) == obstacle


def test_only_agents_that_are_known_are_blocked() -> None:
    message = Message(sender="dev-1", target="operator", message="Blocked: disk full", kind=MessageKind.STATUS)
    record = MessageRecord(message=message, state=MessageState.ACCEPTED, accepted_at=THEN)
    [blocked] = blockages_reported([record], {"dev-1"})
    assert (blocked.agent, blocked.since) == ("dev-1", THEN)
    assert blocked.text == "Its last status says it is blocked: disk full"
    assert list(blockages_reported([record], {"dev-2"})) == []


@pytest.mark.parametrize(
    ("info", "wants"),
    [
        (agent(AgentState.LOGIN), ["login dev-1"]),
        (agent(AgentState.LOGIN, online=False), []),
        (agent(AgentState.WAITING).model_copy(update={"asks": "Trust it?"}), ["held up dev-1"]),
        (agent(AgentState.WAITING), []),  # its task says what it waits for
        (agent(AgentState.READY), []),
    ],
)
def test_an_agent_that_is_there_may_want_something_before_it_starts(info: AgentInfo, wants: list[str]) -> None:
    assert [need.id for need in held_up_needs([info])] == wants


def checkin(
    outcome: SlotOutcome | None = None, *, state: CheckinState = CheckinState.ACTIVE, **to: Any
) -> CheckinRecord:
    """A check-in of which the last slot had this outcome, for dev-1 unless it is said."""
    asked = Checkin(
        id="c1",
        note="look at the build",
        target=Target(**(to or {"agent": "dev-1"})),
        schedule=Every(seconds=60, start=THEN),
        sender="operator",
    )
    last = Fire(checkin_id="c1", slot=THEN, outcome=outcome, at=THEN, note="no agent matches") if outcome else None
    return CheckinRecord(checkin=asked, state=state, last=last)


@pytest.mark.parametrize(
    ("record", "present", "why"),
    [
        (checkin(), {"dev-1"}, None),
        (checkin(), {"dev-2"}, "dev-1 is gone"),
        (checkin(), None, None),
        (checkin(state=CheckinState.PAUSED), {"dev-2"}, None),
        (checkin(state=CheckinState.ENDED), {"dev-2"}, None),
        (checkin(SlotOutcome.SENT), {"dev-1"}, None),
        (checkin(SlotOutcome.REFUSED, state=CheckinState.ENDED), {"dev-1"}, "no agent matches"),
        (checkin(SlotOutcome.REFUSED, role="qa"), {"dev-1"}, "no agent matches"),
        (checkin(task={"agent": "dev-1"}), {"dev-2"}, "dev-1 is gone"),
        (checkin(agent="operator"), {"dev-1"}, None),
    ],
)
def test_a_check_in_that_reaches_nobody_needs_a_person(
    record: CheckinRecord, present: set[str] | None, why: str | None
) -> None:
    found = [(need.id, need.text, need.do) for need in checkin_needs([record], present)]
    text = f"check-in c1 (look at the build) reaches no agent: {why}"
    assert found == ([("checkin c1", text, "torch-tasks checkin show c1")] if why else [])


def test_other_needs_say_which_command_helps() -> None:
    dead = dead_need("t1", Outline(TaskState.DEAD, "torch.any.any", 7))
    assert (dead.id, dead.do) == ("dead t1 7", "torch-tasks dead show t1")
    assert dead_need("t1", None).id == "dead t1 0"
    lost = unroutable_need("torch.qa.go+sql", 3)
    assert "(3), and no live agent serves qa+go+sql" in lost.text
    assert (lost.role, lost.skills) == ("qa", ("go", "sql"))
    limited = limited_need("work", THEN)
    assert (limited.account, "it rests until 2026-03-01 09:00:00 UTC" in limited.text) == ("work", True)


@pytest.mark.parametrize(
    ("name", "limit", "used", "says"),
    [
        ("calls_per_day", 3, 3, "account work has used its 3 calls per day; it goes on at 2026-03-01 09:00:00 UTC"),
        ("usd_per_day", 2.5, 2.6, "account work has used its 2.50 USD per day; it goes on at 2026-03-01 09:00:00 UTC"),
        ("calls_per_day", 3, 2, None),
        ("calls_per_day", None, 9, None),
        ("calls_per_minute", 3, 3, None),
    ],
)
def test_an_account_that_waits_for_another_day_is_shown(
    name: str, limit: float | None, used: float, says: str | None
) -> None:
    line = BudgetLine(account="work", name=name, limit=limit, used=used, until=THEN)
    assert [need.text for need in over_budget_needs([line])] == ([says] if says else [])

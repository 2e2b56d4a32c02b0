"""Decides what becomes of a delivery of ``torch.run``: when it arrives, when its agent reached for it, at a try's end.

Nothing is read or changed here: :mod:`torch_tasks.tasks.execution` gathers the facts and carries out the decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch_tasks.keys import agent_queue
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.routing import is_able, queue_for
from torch_tasks.model.task import HELD, Priority, TaskRecord, TaskResult, TaskSpec, TaskState
from torch_tasks.store.task_outcomes import Take

SOON = 1.0
"""Seconds until a task that this agent left to others is delivered again."""
LATER = 5.0
"""The same where the worker cannot begin any task."""
PASSES = 5
"""How often an agent that failed at a task leaves it to others before it tries again itself."""


class Act(StrEnum):
    """What is done with the delivery, or with its task."""

    TAKE = "take"
    """The agent reaches for the task, in one step on the broker."""
    DO = "do"
    """The agent does the task, or goes on with what it has begun already."""
    REPORT = "report"
    """The task has ended: its result is reported once more."""
    DROP = "drop"
    """Another agent owns the task and has its own delivery: this one is acknowledged."""
    GIVE_BACK = "give back"
    """The message goes back to its queue at once."""
    PUT_ASIDE = "put aside"
    """The message comes again through its queue, after a pause."""
    SET_ASIDE = "set aside"
    """The message waits where no agent gets it: its task is to begin after others."""
    LEAVE_TO_OTHERS = "leave to others"
    """As PUT_ASIDE, and counted: other agents should take it meanwhile."""
    SEND_ON = "send on"
    """The message goes to another queue; the record stays as it is."""
    SEND_TO_OWNER = "send to owner"
    """The message goes to the agent that owns the task; this one forgets the task."""
    RELEASE = "release"
    """The agent gives up the task, the try does not count, and the message goes to the task's queue."""
    RETRY = "retry"
    """The task is tried again after a pause."""
    FINISH = "finish"
    """The result is written into the record."""
    FORBID = "forbid"
    """The task fails before any agent begins it."""
    REFUSE = "refuse"
    """The task is dead before any agent begins it, with its message among the dead letters."""
    BURY = "bury"
    """FINISH with the task dead and its message among the dead letters."""


@dataclass(frozen=True)
class Decision:
    act: Act
    queue: str = ""
    priority: Priority = Priority.NORMAL
    seconds: float = 0.0
    state: TaskState | None = None
    note: str = ""
    tries: int = 0
    """The tries that count, with the one that has just ended."""


# ── a delivery comes ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Arrival:
    """What is known when a delivery comes to an agent."""

    asked: TaskSpec
    """The task as this message asks for it; what counts is the record's."""
    record: TaskRecord
    agent: AgentInfo
    unfinished: str | None = None
    """The task in the agent's pane."""
    retiring: bool = False
    held: str | None = None
    """Why the agent may begin nothing: it is paused or stopped."""
    forbidden: str = ""
    """Why who enqueued the task may not have it done."""
    swapped: str = ""
    """Why the record's spec is not one that was signed."""
    times_passed: int = 0
    others: Sequence[AgentInfo] = ()
    """Other agents that can take the task, if :func:`should_look_for_others`."""


def on_arrival(facts: Arrival) -> Decision:
    """Whether the agent reaches for the task, and if not, where its message goes."""
    spec, record = facts.record.spec, facts.record
    if facts.unfinished != facts.asked.id and (elsewhere := _begins_nothing(facts)):
        return elsewhere
    if record.state.ended:
        return Decision(Act.REPORT)
    if record.state is TaskState.PENDING:
        return Decision(Act.SET_ASIDE)
    if facts.swapped:
        return Decision(Act.REFUSE, note=facts.swapped)
    if record.state in HELD:
        return Decision(Act.TAKE)
    if facts.forbidden:
        return Decision(Act.FORBID, note=facts.forbidden)
    if not is_able(facts.agent, spec):  # it was handed over, or this message asks for another agent than the record
        return Decision(Act.SEND_ON, queue_for(spec), spec.priority)
    if _is_better_elsewhere(facts):
        return Decision(Act.LEAVE_TO_OTHERS, seconds=SOON)
    return Decision(Act.TAKE)


def _begins_nothing(facts: Arrival) -> Decision | None:
    """What becomes of a message other than that of the unfinished task, while the agent begins nothing."""
    if facts.retiring:
        return Decision(Act.SEND_ON, queue_for(facts.asked), facts.asked.priority)
    if facts.unfinished:  # the message of that one is on its way
        return Decision(Act.PUT_ASIDE, seconds=SOON)
    return Decision(Act.GIVE_BACK, note=f"not begun: {facts.held}") if facts.held else None


def should_look_for_others(record: TaskRecord, agent: AgentInfo) -> bool:
    """Whether other agents should have the task first: this one handed it over, or failed at it before."""
    if record.state.ended or record.state in HELD or record.spec.agent:
        return False
    has_failed = record.agent == agent.agent_id and record.attempts > record.tries_before
    return has_failed or _has_handed_over(record, agent)


def _is_better_elsewhere(facts: Arrival) -> bool:
    """Others should have the task first, and can; after ``PASSES`` times a free agent is no longer waited for."""
    if not should_look_for_others(facts.record, facts.agent):
        return False
    others = [other for other in facts.others if other.agent_id != facts.agent.agent_id]
    if _has_handed_over(facts.record, facts.agent):
        return bool(others)
    return facts.times_passed < PASSES and any(other.free for other in others)


def _has_handed_over(record: TaskRecord, agent: AgentInfo) -> bool:
    handover = record.handover
    return bool(handover and handover.owner == agent.agent_id and handover.attempt == record.attempts)


# ── the agent has reached for the task ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Reach:
    """How the agent's attempt to take the task ended."""

    outcome: Take
    owner: str
    """The agent that owns the task, or owned it before."""
    record: TaskRecord
    agent: AgentInfo


def on_reach(facts: Reach) -> Decision:
    """Whether the agent does the task."""
    if facts.outcome is Take.OWNED:
        return Decision(Act.SEND_TO_OWNER, agent_queue(facts.owner), Priority.URGENT)
    if facts.record.state.ended:
        return Decision(Act.REPORT)
    handover = facts.record.handover
    if handover and handover.attempt != facts.record.attempts and not is_able(facts.agent, facts.record.spec):
        return released_to_successor(facts.record)  # handed over just as this agent took it, or by one that is dead
    return Decision(Act.DO)


def released_to_successor(record: TaskRecord) -> Decision:
    assert record.handover
    return _released(record.spec, TaskState.QUEUED, f"handed over to {record.handover.to}")


def _released(spec: TaskSpec, state: TaskState, note: str) -> Decision:
    return Decision(Act.RELEASE, queue_for(spec), spec.priority, state=state, note=note)


# ── a try has ended ──────────────────────────────────────────────────────────────────────────────────────────────────


class Ending(StrEnum):
    RESULT = "result"
    """The agent finished it, with success or failure."""
    DETACHED = "detached"
    """The worker stops; the agent goes on working."""
    LIMITED = "limited"
    """The agent's account has reached its usage limit."""
    HELD = "held"
    """The agent was paused or stopped and gave the task back."""
    HANDED_OVER = "handed over"
    """The agent gave it up for another one."""


@dataclass(frozen=True)
class EndOfTry:
    """What is known when a try has ended."""

    ending: Ending
    record: TaskRecord
    """As of when the agent took the task; if it was handed over, as of now."""
    agent: AgentInfo
    reason: str = ""
    result: TaskResult | None = None
    max_retries: int = 0
    """The retries of a task whose spec names none."""


def on_end(facts: EndOfTry) -> Decision:
    """Whether the task has ended, and if not, which queue it goes to."""
    match facts.ending:
        case Ending.DETACHED:  # the agent's next worker gets it first
            return Decision(Act.SEND_ON, agent_queue(facts.agent.agent_id), Priority.URGENT)
        case Ending.HANDED_OVER:
            return released_to_successor(facts.record)
        case Ending.LIMITED:
            return _released(facts.record.spec, TaskState.PARKED, facts.reason)
        case Ending.HELD:
            return _released(facts.record.spec, TaskState.QUEUED, f"given back: {facts.reason}")
        case Ending.RESULT:
            assert facts.result
            return _on_result(facts.record, facts.result, facts.max_retries)


def _on_result(record: TaskRecord, result: TaskResult, max_retries: int) -> Decision:
    """Retry a failure that is worth it while retries are left, then bury the task."""
    spec, failure = record.spec, result.error
    if failure is None or not failure.kind.worth_retrying:
        return Decision(Act.FINISH)
    allowed = max_retries if spec.max_retries is None else spec.max_retries
    tries = result.attempts - record.tries_before
    if tries <= allowed:
        note = f"attempt {result.attempts}: {failure.message}"
        return Decision(Act.RETRY, queue_for(spec), spec.priority, state=TaskState.QUEUED, note=note, tries=tries)
    return Decision(Act.BURY)

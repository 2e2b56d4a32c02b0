"""Requests about an accepted task: its record, cancelling it, answering its agent's question."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from torch_tasks.errors import NotAnswered
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.routing import Prospects, is_held_back
from torch_tasks.model.task import HELD, NOT_BEGUN, HistoryEntry, TaskRecord, TaskResult, TaskSpec, TaskState
from torch_tasks.store.task_fields import followers
from torch_tasks.tasks import recovery

ANSWERED, NOT_TAKEN = "answered: ", "not taken: "
"""How notes in a task's history begin that say whether the agent took an answer."""
_ANSWER_SECONDS = 20.0
#: After how long a worker is asked again that has not said that it has an answer.
_AGAIN_SECONDS = 2.0


def record_of(task_id: str) -> TaskRecord:
    """The task's record, restored first if the broker forgot it; :class:`TaskNotFound` if it is known nowhere."""
    record = fleet().records.find(task_id)
    if record is None:
        recovery.recall(task_id)
        record = fleet().records.get(task_id)
    return record


def with_prospects(record: TaskRecord, prospects: Prospects | None = None) -> TaskRecord:
    """The record, with ``unroutable`` and ``waits`` as of now; ``prospects`` are those of the whole fleet."""
    if record.state is TaskState.PENDING:
        return record.model_copy(update={"waits": _awaited(record)})
    awaited = record.agent if record.state in HELD else record.spec.agent
    if record.state not in HELD and record.state is not TaskState.QUEUED:
        return record
    if prospects is None:
        prospects = Prospects(_who_may_take(record.spec, awaited))
    waits = prospects.why_waiting(record)
    return record.model_copy(update={"unroutable": prospects.unroutable(record), "waits": waits})


def _who_may_take(spec: TaskSpec, awaited: str | None) -> list[AgentInfo]:
    if awaited:
        return fleet().registry.get_agents([awaited])
    known = fleet().registry.find_serving(spec)
    return fleet().registry.agents() if any(is_held_back(info) for info in known) else known  # are all of them?


def _awaited(record: TaskRecord) -> str:
    """The tasks that it waits for, each with its title."""
    after = record.spec.after
    found = dict(zip(after, fleet().records.find_all(after), strict=True))
    names = [
        f"{task_id}: {one.spec.title}" if one else f"{task_id}, of which there is no record any more"
        for task_id, one in found.items()
        if one is None or one.state is not TaskState.SUCCEEDED
    ]
    return f"for {'; '.join(names)}" if names else "no more: it is being queued"


def cancel(task_id: str) -> TaskState:
    """End the task at once if no agent has begun it, else interrupt its agent; returns the state it was in."""
    from torch_tasks.app import app
    from torch_tasks.tasks import set_aside

    records = fleet().records
    state = record_of(task_id).state
    if state.ended:
        recovery.keep_end(task_id)
        return state
    records.request_cancel(task_id)
    words = "cancelled before an agent began" if state in NOT_BEGUN else "cancelled while its agent was gone"
    account = records.end_unowned(TaskResult.cancelled(task_id, words), offline_is_gone=True)
    recovery.keep_end(task_id, asked_here=True)
    if account is None:
        state = record_of(task_id).state
    if account is None or not set_aside.withdraw(records.get(task_id), fleet()):
        app.control.revoke(task_id, terminate=True)  # a worker has it, or is to drop it when it comes
    if account:
        set_aside.settle(followers(account), fleet())
    return state


def waiting_since(history: Sequence[HistoryEntry]) -> datetime | None:
    """Since when a task with this history has waited for the same thing; None if it does not wait."""
    since = None
    for entry in reversed(history):
        if (entry.state, entry.note) != (TaskState.WAITING, history[-1].note):
            break
        since = entry.at
    return since


def answer(task_id: str, reply: str, asked_at: datetime | None = None) -> str:
    """Answer the question of a waiting task's agent; returns what the agent took, once it has.

    With ``asked_at``, only the question that was asked then. In place of a task, an agent may be named that is held up
    at its start.
    """
    held_up = [info for info in fleet().registry.get_agents([task_id]) if info.is_held_up]
    if held_up and fleet().records.find(task_id) is None:
        return _answer_at_start(held_up[0], reply)
    record = record_of(task_id)
    agent, node = record.agent, record.node
    history = fleet().records.history(task_id)
    if asked_at is not None and waiting_since(history) != asked_at:
        raise NotAnswered(_overtaken(task_id, record.state, history, asked_at))
    if record.state is not TaskState.WAITING or record.question is None:
        raise NotAnswered(f"task {task_id} is {record.state} and waits for no answer")
    if not any(info.online for info in fleet().registry.get_agents([agent or ""])):
        raise NotAnswered(
            f"{agent}, which asks in task {task_id}, is gone: the answer can be given when it is back, or "
            f"'torch-tasks cancel {task_id}' ends the task"
        )
    before = len(history)
    if not _pass_on(agent, node, task_id, reply, was_noted=lambda: _verdict(task_id, before) is not None):
        raise NotAnswered(f"{agent} no longer works on task {task_id}")
    return _await_taken(task_id, before)


def _overtaken(task_id: str, state: TaskState, history: Sequence[HistoryEntry], asked_at: datetime) -> str:
    """What became of a question that is not the present one any more."""
    notes = (entry.note or "" for entry in history if entry.at >= asked_at)
    given = next((note.removeprefix(ANSWERED) for note in notes if note.startswith(ANSWERED)), None)
    became = "is over" if given is None else f"has been answered meanwhile, with {given!r}"
    return f"this question of task {task_id} {became}; the task is {state} now"


def _answer_at_start(info: AgentInfo, reply: str) -> str:
    if not _pass_on(info.agent_id, info.node, "", reply, was_noted=lambda: False):
        raise NotAnswered(f"{info.agent_id} does not take {reply!r}; its program asks: {info.asks}")
    return f"{ANSWERED}{reply}"


def _pass_on(agent: str | None, node: str | None, task_id: str, reply: str, was_noted: Callable[[], bool]) -> bool:
    """Have the agent's worker give the answer; false if nothing is asked that takes it.

    A worker that is coming back hears nothing yet, so it is asked again. It gives an answer once, by its ticket; what
    a worker ``was_noted`` to have done with it that died before it could say so is not asked of the next one.
    """
    from torch_tasks.app import ANSWER, app

    ticket, until = uuid.uuid4().hex, time.monotonic() + _ANSWER_SECONDS
    while not was_noted():
        replies = app.control.broadcast(
            ANSWER,
            arguments={"task_id": task_id, "reply": reply, "ticket": ticket},
            destination=[f"{agent}@{node}"],
            reply=True,
            timeout=_AGAIN_SECONDS,
            limit=1,
        )
        if replies:
            return bool(next(iter(replies[0].values()))["ok"])
        if time.monotonic() >= until:
            raise NotAnswered(
                f"the worker of {agent} on {node} does not answer; is it running? See 'torch-tasks agents'"
            )
    return True


def _await_taken(task_id: str, before: int) -> str:
    """The note that the agent took the answer, once it has."""
    for _ in fleet().records.changes(task_id, time.monotonic() + _ANSWER_SECONDS):
        note = _verdict(task_id, before)
        if note and note.startswith(NOT_TAKEN):
            raise NotAnswered(f"task {task_id}: {note}")
        if note:
            return note
    raise NotAnswered(f"the agent of task {task_id} received the answer but did not take it in {_ANSWER_SECONDS:g} s")


def _verdict(task_id: str, before: int) -> str | None:
    """The first note, after the first ``before`` of the history, that says whether the agent took an answer."""
    notes = (entry.note or "" for entry in fleet().records.history(task_id)[before:])
    return next((note for note in notes if note.startswith((ANSWERED, NOT_TAKEN))), None)

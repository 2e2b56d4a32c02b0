"""Handing a task over: its agent gives it up and another one goes on, with a note of what to know."""

from __future__ import annotations

import time
from collections.abc import Iterable

from torch_tasks.caller import caller
from torch_tasks.errors import AgentUnable, InvalidHandover, NotYours, TaskEnded, TaskNotFound
from torch_tasks.fleet import fleet
from torch_tasks.model.handover import Handover
from torch_tasks.model.routing import queue_for, why_no_successor
from torch_tasks.model.task import HELD, TaskRecord, TaskSpec
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.tasks.forwarding import queued_tasks

_NOTE_LIMIT = 16_000


def hand_over(
    task_id: str, to: str, note: str = "", questions: Iterable[str] = (), *, by: str | None = None
) -> Handover:
    """Give a task to an agent, or any agent of a role; :func:`await_handover` waits until its owner has given it up.

    The agent that works on it is interrupted.
    Nothing has changed if this raises :class:`AgentUnable`, :class:`TaskEnded`, :class:`NotYours` or
    :class:`InvalidHandover`.
    """
    own = caller()
    if len(note) > _NOTE_LIMIT:
        raise InvalidHandover(f"the note has {len(note):,} characters, the limit is {_NOTE_LIMIT:,}: name a file in it")
    handover = Handover(by=by or own.name, to=to.strip().lower(), note=note, questions=tuple(questions))
    while True:
        require("task.handoff", Right.CHANGE, Subject(task=task_id))
        record = fleet().records.get(task_id)
        works_on_it = own.agent if own.agent and own.agent == record.agent and record.state in HELD else None
        if works_on_it:
            handover = handover.model_copy(update={"pid": own.pid})
        if (written := _write(record, handover, works_on_it)) is not None:
            return written


def _write(record: TaskRecord, handover: Handover, agent: str | None) -> Handover | None:
    """Write it into the record and notify the owner, or move the message; None if the record has changed."""
    from torch_tasks.app import ANNOUNCE_QUEUE, LOOK, app

    records, task_id = fleet().records, record.spec.id
    if record.state.ended:
        raise _ended(task_id, record.state)
    known = records.account(task_id).get("spec", "")
    spec = _spec_for_successor(TaskSpec.model_validate_json(known) if known else record.spec, handover.to, record.agent)
    queue = queue_for(spec)
    outcome, detail, newly_demanded = records.hand_over(record, handover, spec, known=known, queue=queue, asker=agent)
    if outcome == "changed":
        return None
    if outcome == "missing":
        raise TaskNotFound(f"there is no record of task {task_id}")
    if outcome == "ended":
        raise _ended(task_id, detail)
    if outcome == "owned":
        raise NotYours(f"task {task_id} belongs to {detail} by now, not to {agent}")
    if outcome == "own":
        raise InvalidHandover(f"{detail} has task {task_id} already; name another agent, or a role")
    if newly_demanded:
        app.control.broadcast(ANNOUNCE_QUEUE, arguments={"queue": queue})
    if outcome == "asked":
        app.control.broadcast(LOOK, destination=[f"{record.agent}@{record.node}"])
    else:  # perhaps no agent reads the old queue; one that does would send the message on
        for task in queued_tasks(record.queue, fleet(), only=task_id):
            task.forward(fleet())
    return records.get(task_id).handover


def _ended(task_id: str, state: str) -> TaskEnded:
    return TaskEnded(f"task {task_id} is {state}: a task that has ended cannot be handed over")


def _spec_for_successor(spec: TaskSpec, to: str, owner: str | None) -> TaskSpec:
    agents = fleet().registry.agents()
    for info in agents:
        if info.agent_id == to:
            if reason := why_no_successor(info, spec):
                raise AgentUnable(f"{to} cannot take task {spec.id}: {reason}; 'torch-tasks agents' lists all agents")
            return spec.model_copy(update={"agent": to})
    of_role = [info for info in agents if info.role == to]
    if not of_role:
        fleet().registry.get_agent(to)  # raises that there is none of this name
    if all(info.agent_id == owner or why_no_successor(info, spec) for info in of_role):
        raise AgentUnable(f"no other online agent of role {to} can take task {spec.id}")
    return spec.model_copy(update={"agent": None, "role": to})


def await_handover(task_id: str, seconds: float) -> tuple[TaskRecord, bool]:
    """Wait for the owner to give the task up; returns the record, and whether it did in time."""
    records = fleet().records
    states = records.changes(task_id, time.monotonic() + seconds)
    gone = any(records.ownership(task_id).handover is None for _ in states)
    return records.get(task_id), gone

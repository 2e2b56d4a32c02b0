"""Retirement on the broker: what an agent left goes to others, or whoever sent it hears what became of it."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import Any

from torch_tasks import keys
from torch_tasks.communication.message import Message, MessageState, Urgency
from torch_tasks.errors import InboxFull, TaskNotFound, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.lifetimes import Farewell
from torch_tasks.models import HELD, AgentInfo, Failure, FailureKind, TaskRecord, TaskResult, TaskState
from torch_tasks.orchestration.claims import Claims
from torch_tasks.routing import queue_for
from torch_tasks.spawning import Spawned
from torch_tasks.transport.wire import message_id

log = logging.getLogger(__name__)

_TITLE = 200


def give_tasks_back(info: AgentInfo, fleet: Fleet) -> list[str]:
    """What waits in the agent's own queue, or was in its pane, goes to whoever is able.

    A task that asks for this agent alone has failed: nobody would ever take it.
    """
    queue, left = keys.agent_queue(info.agent_id), []
    for message in fleet.deliveries.waiting(queue):
        task_id = message_id(message)
        record = fleet.records.find(task_id) if task_id else None
        if record is None or record.state.ended:
            continue
        _let_go(record, info, fleet)
        if record.spec.agent != info.agent_id:
            fleet.deliveries.forward(queue, message, queue_for(record.spec), record.spec.priority.step)
        left.append(record.spec.id)
    if info.current_task and info.current_task not in left:
        with contextlib.suppress(TaskNotFound):
            record = fleet.records.get(info.current_task)
            if record.state in HELD and record.agent == info.agent_id:
                _let_go(record, info, fleet)  # its message comes back to its queue when its lease is over
                left.append(record.spec.id)
    return left


def _let_go(record: TaskRecord, info: AgentInfo, fleet: Fleet) -> None:
    task_id, records = record.spec.id, fleet.records
    by = info if record.state in HELD and record.agent == info.agent_id else None
    if record.state in HELD and by is None:
        return
    said = f"agent {info.agent_id} has retired"
    try:
        if record.spec.agent == info.agent_id:
            failure = Failure(
                kind=FailureKind.AGENT_UNAVAILABLE, message=f"{said}, and the task asks for no other: enqueue it anew"
            )
            result = TaskResult(
                task_id=task_id, status=TaskState.FAILED, agent=info.agent_id, attempts=record.attempts, error=failure
            )
            records.finish(result, by=by)
        elif by:
            records.move(task_id, TaskState.QUEUED, by=by, note=said, tries_before=record.tries_before + 1)
    except TorchError as error:  # it has gone on without the agent
        log.info("%s: %s", task_id, error)


def tell_senders(info: AgentInfo, fleet: Fleet, others: list[Message]) -> list[str]:
    """The messages that wait for the agent, and ``others`` that only its node has, are dead; their senders hear it."""
    inboxes, told = fleet.inboxes, []
    note = f"agent {info.agent_id} has retired"
    entries = inboxes.waiting(info.agent_id)
    for entry, record in zip(entries, inboxes.records(entry.message_id for entry in entries), strict=True):
        if record is None:
            inboxes.drop(entry)
            continue
        inboxes.settle(record.message, MessageState.DEAD, entry=entry, note=note)
        told.append(record.message)
    known = {message.id for message in told}
    for message in others:
        if message.id not in known:
            inboxes.settle(message, MessageState.DEAD, note=note)
            told.append(message)
    for urgency in Urgency:
        fleet.client.delete(keys.inbox(info.agent_id, urgency))
    _write_to_senders(info, told, fleet)
    return [message.id for message in told]


def _write_to_senders(info: AgentInfo, dead: list[Message], fleet: Fleet) -> None:
    """A sender that is an agent is told in its pane; all others find it in their message's record."""
    senders = {one.agent_id: one for one in fleet.registry.some({message.sender for message in dead})}
    for message in dead:
        sender = senders.get(message.sender)
        if sender is None or sender.agent_id == info.agent_id:
            continue
        text = f"{info.agent_id} has retired and did not read your message {message.id}: {message.title[:_TITLE]}"
        answer = Message.build(
            id=f"{message.id}.retired"[-128:], sender=info.agent_id, target=message.sender, message=text
        )
        with contextlib.suppress(InboxFull):
            fleet.inboxes.send(answer, sender.role)


def strike_off(farewell: Farewell, spawned: Spawned | None, fleet: Fleet) -> None:
    """Strike the agent off all lists, and keep how it ended."""
    entry = fleet.registry.entry(farewell.agent_id)
    if entry and entry.node != farewell.node:  # another node has an agent of this id by now
        return
    _release_claims(farewell.agent_id, fleet)
    fleet.client.hdel(keys.LAST_STATUS, farewell.agent_id)
    fleet.registry.remove(farewell.agent_id)
    for one in [spawned] if spawned else fleet.spawns.some([farewell.agent_id]):
        if one.node == farewell.node:
            fleet.spawns.end(one, farewell.note or f"{farewell.by} had it retire")
    fleet.client.hset(keys.FAREWELLS, farewell.agent_id, farewell.model_dump_json())


def _release_claims(agent_id: str, fleet: Fleet) -> None:
    claims = Claims(fleet.client, fleet.settings)
    for claim in claims.all():
        if claim.agent and claim.by == agent_id:
            claims.release(claim.resource, by=agent_id)


def farewell_of(agent_id: str, fleet: Fleet) -> Farewell | None:
    """How the last agent of this id ended."""
    kept: Any = fleet.client.hget(keys.FAREWELLS, agent_id)
    return Farewell.model_validate(json.loads(kept)) if kept else None

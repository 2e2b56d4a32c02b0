"""Spawning and retiring agents, and draining machines of work."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from torch_tasks import keys
from torch_tasks.caller import caller
from torch_tasks.communication.signed_messages import signed
from torch_tasks.errors import (
    AgentNotFound,
    AgentUnable,
    InboxFull,
    InvalidHandover,
    NotHeld,
    NotInQuarantine,
    RetireImpossible,
    SpawnRefused,
    TaskEnded,
    TorchError,
)
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.model.agent import AgentInfo, RetirementReport, RetireMode, RetireOrder
from torch_tasks.model.fields import Model
from torch_tasks.model.message import Message, MessageState, Urgency
from torch_tasks.model.node import NodeInfo
from torch_tasks.model.spawn import Spawned, SpawnOutcome, SpawnRequest, SpawnTicket
from torch_tasks.model.task import HELD, Failure, FailureKind, TaskRecord, TaskResult, TaskState
from torch_tasks.orchestration import holds
from torch_tasks.settings import settings
from torch_tasks.store.collaboration import ClaimStore
from torch_tasks.tasks.forwarding import queued_tasks
from torch_tasks.tasks.handover import hand_over

log = logging.getLogger(__name__)

_ORDER_SECONDS = 30.0
"""How long a node worker may take to note an order."""
_PAUSE, _LOOK_SECONDS = 0.1, 2.0
"""How often it is checked whether the agent has ended, and whether its node is still online."""
_TITLE = 200


def spawn(request: SpawnRequest) -> SpawnTicket:
    """Ask the node workers for an agent; :func:`outcome_of_spawn` says what becomes of it."""
    if not any(one.online for one in fleet().nodes.nodes()):
        raise SpawnRefused("no agent was started: no node worker is online; 'torch-tasks up' starts one")
    wire = request.model_dump(mode="json", exclude_none=True, exclude={"id"})
    from torch_tasks.orchestration import node_tasks

    # The caller waits no longer than this: an agent that started later would serve no caller.
    node_tasks.spawn.apply_async(kwargs=wire, task_id=request.id, expires=_patience())
    return SpawnTicket(id=request.id, seconds=_patience())


def outcome_of_spawn(request_id: str, seconds: float) -> SpawnOutcome | None:
    """What became of a request, as soon as that is known; None if it is not within ``seconds``."""
    outcome = _result_of(request_id, seconds)
    return None if outcome is None else SpawnOutcome.model_validate(outcome)


def _result_of(task_id: str, seconds: float) -> Any:
    """The result of a node worker's task; None if there is none in time.

    The broker is asked for it at intervals: Celery's own waiting allows one thread of a process only.
    """
    from torch_tasks.app import app

    result, deadline = app.AsyncResult(task_id), time.monotonic() + seconds
    while not result.ready():
        if time.monotonic() >= deadline:
            return None
        time.sleep(_PAUSE)
    return result.get(disable_sync_subtasks=False)


def _patience() -> float:
    """How long a spawn may take, from the request until the agent is ready."""
    return settings().spawn_seconds + _ORDER_SECONDS


def retire(agent_id: str, leave: RetireMode, note: str = "") -> None:
    """Order the end of an agent; :func:`await_retirement` says when it has ended."""
    node, info = _node_of(agent_id)
    _require_online(agent_id, node, "cannot retire now")
    from torch_tasks.app import RETIRE, app
    from torch_tasks.orchestration import node_tasks

    order = RetireOrder(mode=leave, by=caller().name, note=note)
    fleet().client.hdel(keys.RETIREMENT_REPORTS, agent_id)
    _ask_node(node, node_tasks.retire, RetireImpossible, agent_id, order.model_dump(mode="json"))
    if info and info.online:  # its worker reads the order at once
        app.control.broadcast(RETIRE, destination=[f"{agent_id}@{node.name}"])


def await_retirement(agent_id: str, seconds: float) -> RetirementReport | None:
    """What became of an agent that was ordered to end; None if it has not ended within ``seconds``.

    Raises :class:`RetireImpossible` if its node goes offline meanwhile.
    """
    deadline, next_look = time.monotonic() + seconds, time.monotonic()
    while (report := fleet().registry.report_of(agent_id)) is None:
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + _LOOK_SECONDS
            with suppress(AgentNotFound):  # it has just ended
                node, _ = _node_of(agent_id)
                _require_online(agent_id, node, "has not retired, and will when its node is back")
        if time.monotonic() >= deadline:
            return None
        time.sleep(_PAUSE)
    return report


def _require_online(agent_id: str, node: NodeInfo, what: str) -> None:
    if not node.online:
        raise RetireImpossible(
            f"agent {agent_id} {what}: only its node {node.name} can end its pane, and that is offline. "
            f"If {node.name} does not come back, 'torch-tasks agents forget {agent_id}' removes it from the fleet"
        )


def release(agent_id: str) -> None:
    """Have its node try an agent again that it left down after too many crashes, or retired."""
    from torch_tasks.orchestration import node_tasks

    node, _ = _node_of(agent_id)
    _ask_node(node, node_tasks.release, NotInQuarantine, agent_id)


def _ask_node(node: NodeInfo, task: Any, refusal: type[Exception], *args: Any) -> None:
    sent = task.apply_async(args, queue=keys.node_queue(node.name), expires=_ORDER_SECONDS)
    reason = _result_of(sent.id, _ORDER_SECONDS)
    if reason is None:
        raise RetireImpossible(
            f"the node worker of {node.name} did not answer within {_ORDER_SECONDS:g} s; nothing was done"
        )
    if reason:
        raise refusal(reason)


def _node_of(agent_id: str) -> tuple[NodeInfo, AgentInfo | None]:
    """The agent's node and entry; an agent that its node left down may have no entry."""
    info = fleet().registry.entry(agent_id)
    nodes = fleet().nodes.nodes()
    for node in nodes:
        if info and info.node == node.name:
            return node, info
    for node in nodes:
        if any(agent.agent_id == agent_id for agent in node.agents):
            return node, info
    if info:
        raise RetireImpossible(
            f"agent {agent_id} is on {info.node}, which has no node worker: end its worker and its pane there; "
            f"if it is gone, 'torch-tasks agents forget {agent_id}' removes it from the fleet"
        )
    raise fleet().registry.unknown(agent_id)


def give_tasks_back(info: AgentInfo, note: str, fleet: Fleet) -> list[str]:
    """Give the tasks in the agent's queue and pane to any able agent; fail those that ask for this agent alone.

    The ``note`` says what became of the agent.
    """
    left = []
    for task in queued_tasks(keys.agent_queue(info.agent_id), fleet):
        _give_back(task.record, info, note, fleet)
        if task.record.spec.agent != info.agent_id:
            task.forward(fleet)
        left.append(task.record.spec.id)
    if info.current_task and info.current_task not in left:
        record = fleet.records.find(info.current_task)
        if record and record.state in HELD and record.agent == info.agent_id:
            _give_back(record, info, note, fleet)  # its message returns to the queue when its lease ends
            left.append(record.spec.id)
    return left


def _give_back(record: TaskRecord, info: AgentInfo, note: str, fleet: Fleet) -> None:
    task_id, records = record.spec.id, fleet.records
    by = info if record.state in HELD and record.agent == info.agent_id else None
    if record.state in HELD and by is None:
        return
    try:
        if record.spec.agent == info.agent_id:
            failure = Failure(
                kind=FailureKind.AGENT_UNAVAILABLE, message=f"{note}, and the task asks for no other: enqueue it again"
            )
            result = TaskResult(
                task_id=task_id, status=TaskState.FAILED, agent=info.agent_id, attempts=record.attempts, error=failure
            )
            records.finish(result, by=by)
        elif by:
            records.move(task_id, TaskState.QUEUED, by=by, note=note, tries_before=record.tries_before + 1)
    except TorchError as error:
        log.info("task %s goes on without the retired agent: %s", task_id, error)


def bury_messages(info: AgentInfo, note: str, fleet: Fleet, others: Iterable[Message] = ()) -> list[str]:
    """Mark the agent's waiting messages, and ``others`` that only its node has, as dead, and notify their senders.

    The ``note`` says what became of the agent.
    """
    inboxes, dead = fleet.inboxes, []
    entries = inboxes.waiting(info.agent_id)
    for entry, record in zip(entries, inboxes.records(entry.message_id for entry in entries), strict=True):
        if record is None:
            inboxes.drop(entry)
            continue
        inboxes.settle(record.message, MessageState.DEAD, entry=entry, note=note)
        dead.append(record.message)
    known = {message.id for message in dead}
    for message in others:
        if message.id not in known:
            inboxes.settle(message, MessageState.DEAD, note=note)
            dead.append(message)
    for urgency in Urgency:
        fleet.client.delete(keys.inbox(info.agent_id, urgency))
    _write_to_senders(info, dead, note, fleet)
    return [message.id for message in dead]


def _write_to_senders(info: AgentInfo, dead: list[Message], note: str, fleet: Fleet) -> None:
    """Notify senders that are agents; the others see it in the message's record."""
    senders = {one.agent_id: one for one in fleet.registry.get_agents({message.sender for message in dead})}
    for message in dead:
        sender = senders.get(message.sender)
        if sender is None or sender.agent_id == info.agent_id:
            continue
        text = f"{note} and did not read your message {message.id}: {message.title[:_TITLE]}"
        answer = Message.build(
            id=f"{message.id}.retired"[-128:], sender=info.agent_id, target=message.sender, message=text
        )
        with suppress(InboxFull):
            fleet.inboxes.send(signed(answer), sender.role)


def remove_agent(report: RetirementReport, spawned: Spawned | None, fleet: Fleet) -> None:
    """Remove the agent from all lists, and keep the report."""
    entry = fleet.registry.entry(report.agent_id)
    if entry and entry.node != report.node:  # another node has an agent of this id by now
        return
    claims = ClaimStore(fleet.client, fleet.settings)
    for claim in claims.all():
        if claim.agent and claim.by == report.agent_id:
            claims.release(claim.resource, by=report.agent_id)
    fleet.client.hdel(keys.LAST_STATUS, report.agent_id)
    fleet.registry.remove(report.agent_id)
    for one in [spawned] if spawned else fleet.spawns.get_many([report.agent_id]):
        if one.node == report.node:
            fleet.spawns.end(one, report.note or f"{report.words}, by order of {report.by}")
    fleet.registry.report(report)


class DrainReport(Model):
    """The state of a node as its draining begins."""

    node: str
    held: tuple[str, ...] = ()
    """The agents that were paused."""
    handed_over: tuple[tuple[str, str], ...] = ()
    """Agent and task, where another agent of its role goes on."""
    working: tuple[tuple[str, str], ...] = ()
    """Agent and task, where the agent finishes it."""


def drain(node: str, *, hand_over_tasks: bool = False) -> DrainReport:
    """Start no agent on this node, and pause those that are there.

    They finish their tasks, or hand them over where another agent of the same role is able to go on.
    """
    fleet().nodes.drain(node, drained=True)
    held: list[str] = []
    handed: list[tuple[str, str]] = []
    working: list[tuple[str, str]] = []
    for info in _agents(node):  # offline agents come back paused
        if info.paused is None:
            holds.pause(info.agent_id, reason=_reason(node))
            held.append(info.agent_id)
    for info, task in _at_work(node):  # no agent there begins another task
        moved = hand_over_tasks and _try_to_hand_over(info, task, node)
        (handed if moved else working).append((info.agent_id, task))
    return DrainReport(node=node, held=tuple(held), handed_over=tuple(handed), working=tuple(working))


def undrain(node: str) -> tuple[str, ...]:
    """Undo :func:`drain`; returns the resumed agents. One that was paused for another reason stays so."""
    fleet().nodes.drain(node, drained=False)
    resumed = []
    for info in _agents(node):
        if info.paused and info.paused.reason == _reason(node):
            with suppress(NotHeld):
                holds.resume(info.agent_id)
                resumed.append(info.agent_id)
    return tuple(resumed)


def await_empty(node: str, seconds: float) -> list[tuple[str, str]]:
    """Wait until no agent works on this node; returns those that still do after ``seconds``, with their tasks."""
    fleet().nodes.get_node(node)
    deadline = time.monotonic() + seconds
    while (at_work := _at_work(node)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return [(info.agent_id, task) for info, task in at_work]


def _agents(node: str) -> list[AgentInfo]:
    return [info for info in fleet().registry.agents() if info.node == node]


def _at_work(node: str) -> list[tuple[AgentInfo, str]]:
    return [(info, info.current_task) for info in _agents(node) if info.online and info.current_task]


def _try_to_hand_over(info: AgentInfo, task: str, node: str) -> bool:
    with suppress(AgentUnable, InvalidHandover, TaskEnded):
        hand_over(task, info.role, _reason(node))
        return True
    return False


def _reason(node: str) -> str:
    return f"node {node} is drained"

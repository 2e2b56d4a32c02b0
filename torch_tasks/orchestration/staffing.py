"""Spawning and retiring agents, and draining machines of work."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from celery.exceptions import TimeoutError as NoAnswer

from torch_tasks import errors, keys
from torch_tasks.app import RETIRE, app
from torch_tasks.caller import caller
from torch_tasks.errors import (
    AgentUnable,
    InboxFull,
    InvalidHandover,
    NotHeld,
    NotInQuarantine,
    NotYours,
    RetireImpossible,
    SpawnFailed,
    SpawnRefused,
    StillWorking,
    TaskEnded,
    TorchError,
)
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.model.agent import AgentInfo, RetirementReport, RetireMode, RetireOrder
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.message import Message, MessageState, Urgency
from torch_tasks.model.node import NodeInfo
from torch_tasks.model.spawn import Spawned, SpawnRequest
from torch_tasks.model.task import HELD, Failure, FailureKind, TaskRecord, TaskResult, TaskState
from torch_tasks.orchestration import holds, node_tasks
from torch_tasks.settings import settings
from torch_tasks.store.collaboration import ClaimStore
from torch_tasks.tasks.forwarding import queued_tasks
from torch_tasks.tasks.handover import hand_over

log = logging.getLogger(__name__)

_ORDER_SECONDS = 30.0
"""How long a node worker may take to note an order."""
_PAUSE, _LOOK_SECONDS = 0.1, 2.0
"""How often a caller checks whether the agent has ended, and whether its node is still online."""
_TITLE = 200


class SpawnHandle:
    """An agent that was asked for."""

    def __init__(self, request: SpawnRequest, result: Any) -> None:
        self.id = request.id
        self._result = result
        self._outcome: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<SpawnHandle {self.agent_id if self._outcome else self.id}>"

    @property
    def ready(self) -> bool:
        """The agent takes tasks."""
        return bool((self._outcome or (self._result.ready() and self._await_outcome(None)) or {}).get("ready"))

    @property
    def agent_id(self) -> str:
        """The agent's id; waits as :meth:`wait` does."""
        return str((self._outcome or self.wait()._outcome or {})["agent_id"])

    @property
    def node(self) -> str:
        """The agent's machine; waits as :meth:`wait` does."""
        return str((self._outcome or self.wait()._outcome or {})["node"])

    def wait(self, timeout: float | None = None) -> SpawnHandle:
        """Return when the agent is ready. :class:`SpawnRefused` names the limit, :class:`SpawnFailed` the reason."""
        outcome = self._await_outcome(_patience() if timeout is None else timeout)
        if not outcome["ready"]:
            raise getattr(errors, outcome["error"], SpawnFailed)(outcome["reason"])
        return self

    def _await_outcome(self, timeout: float | None) -> dict[str, Any]:
        if self._outcome is None:
            try:
                self._outcome = dict(self._result.get(timeout=timeout, disable_sync_subtasks=False))
            except NoAnswer:
                raise SpawnFailed(
                    f"no node worker reported within {describe_duration(timeout or 0)} whether the agent "
                    "started; 'torch-tasks node list' shows which are online, "
                    "'torch-tasks agents' whether the agent started after all"
                ) from None
        return self._outcome

    def retire(self, **how: Any) -> RetirementReport | None:
        """End the agent; see :meth:`torch_tasks.Torch.retire`."""
        return retire(self.agent_id, **how)


def spawn(request: SpawnRequest) -> SpawnHandle:
    """Ask for an agent; see :meth:`torch_tasks.Torch.spawn`."""
    if not any(one.online for one in fleet().nodes.nodes()):
        raise SpawnRefused("no agent was started: no node worker is online; 'torch-tasks up' starts one")
    wire = request.model_dump(mode="json", exclude_none=True, exclude={"id"})
    # The caller waits no longer than this: an agent that started later would serve no caller.
    result = node_tasks.spawn.apply_async(kwargs=wire, task_id=request.id, expires=_patience())
    return SpawnHandle(request, result)


def _patience() -> float:
    """How long a spawn may take, from the request until the agent is ready."""
    return settings().spawn_seconds + _ORDER_SECONDS


def retire(
    agent_id: str,
    *,
    leave: RetireMode | str = RetireMode.FINISH,
    note: str = "",
    by: str | None = None,
    wait: bool = True,
    timeout: float | None = None,
) -> RetirementReport | None:
    """End an agent; see :meth:`torch_tasks.Torch.retire`."""
    own = caller()
    node, info = _node_of(agent_id)
    if own.agent and own.agent not in (agent_id, info and info.parent):
        raise NotYours(
            f"{own.agent} may not retire agent {agent_id}: an agent retires itself and the agents it spawned"
        )
    if not node.online:
        raise RetireImpossible(
            f"agent {agent_id} cannot retire now: only its node {node.name} can end its pane, and that is offline. "
            f"If {node.name} does not come back, 'torch-tasks agents forget {agent_id}' removes it from the fleet"
        )
    order = RetireOrder(mode=RetireMode(leave), by=by or own.name, note=note)
    fleet().client.hdel(keys.RETIREMENT_REPORTS, agent_id)
    _ask_node(node, node_tasks.retire, RetireImpossible, agent_id, order.model_dump(mode="json"))
    if info and info.online:  # its worker reads the order at once
        app.control.broadcast(RETIRE, destination=[f"{agent_id}@{node.name}"])
    return _await_report(agent_id, node.name, timeout) if wait else None


def _await_report(agent_id: str, node: str, timeout: float | None) -> RetirementReport:
    deadline = None if timeout is None else time.monotonic() + timeout
    next_look = time.monotonic() + _LOOK_SECONDS
    while (report := fleet().registry.report_of(agent_id)) is None:
        if time.monotonic() > next_look:
            next_look = time.monotonic() + _LOOK_SECONDS
            if not fleet().nodes.get_node(node).online:
                raise RetireImpossible(f"node {node} went offline before {agent_id} retired; it will when it is back")
        if deadline is not None and time.monotonic() > deadline:
            info = fleet().registry.entry(agent_id)
            task = f"works on task {info.current_task}" if info and info.current_task else "has not ended"
            raise StillWorking(
                f"agent {agent_id} still {task} after {describe_duration(timeout or 0)}; it takes no new tasks and "
                "retires by itself. "
                "'torch-tasks retire --now' or '--hand-over' does not wait for its task"
            )
        time.sleep(_PAUSE)
    return report


def release(agent_id: str) -> None:
    """Have its node try an agent again that it left down after too many crashes, or retired."""
    node, _ = _node_of(agent_id)
    _ask_node(node, node_tasks.release, NotInQuarantine, agent_id)


def _ask_node(node: NodeInfo, task: Any, refusal: type[Exception], *args: Any) -> None:
    result = task.apply_async(args, queue=keys.node_queue(node.name), expires=_ORDER_SECONDS)
    try:
        reason = result.get(timeout=_ORDER_SECONDS, disable_sync_subtasks=False)
    except NoAnswer:
        raise RetireImpossible(
            f"the node worker of {node.name} did not answer within {_ORDER_SECONDS:g} s; nothing was done"
        ) from None
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
            fleet.inboxes.send(answer, sender.role)


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


@dataclass(frozen=True)
class DrainReport:
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
    return DrainReport(node, tuple(held), tuple(handed), tuple(working))


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


def await_empty(node: str, timeout: float) -> None:
    """Return when no agent works on this node; :class:`StillWorking` if that takes longer than ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while at_work := [f"{info.agent_id} (task {task})" for info, task in _at_work(node)]:
        if time.monotonic() >= deadline:
            raise StillWorking(
                f"still working on {node} after {describe_duration(timeout)}: {', '.join(at_work)}; no new task begins "
                "there, and 'torch-tasks node drain --hand-over' gives these to other agents"
            )
        time.sleep(_PAUSE)


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

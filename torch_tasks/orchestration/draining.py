"""Draining: a machine is emptied of work before it is upgraded, or taken away."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from torch_tasks.errors import AgentUnable, InvalidHandover, NotHeld, StillWorking, TaskEnded
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.orchestration import control
from torch_tasks.tasks.handover import hand_over

_PAUSE = 0.2


@dataclass(frozen=True)
class Drained:
    """What draining a machine has begun."""

    node: str
    held: tuple[str, ...] = ()
    """The agents that take no new task now."""
    handed_over: tuple[tuple[str, str], ...] = ()
    """Agent and task, of those that others of its role go on with."""
    working: tuple[tuple[str, str], ...] = ()
    """Agent and task, of those that are finished there."""


def drain(node: str, *, hand_over_tasks: bool = False) -> Drained:
    """Have no agent started on this node, and none of those there take a new task; their panes stay as they are.

    What they do is finished, or handed over where somebody of the same role is able to go on.
    """
    fleet().nodes.drain(node, drained=True)
    held: list[str] = []
    handed: list[tuple[str, str]] = []
    working: list[tuple[str, str]] = []
    for info in _agents(node):  # whoever is away comes back paused
        if info.paused is None:
            control.pause(info.agent_id, reason=_reason(node))
            held.append(info.agent_id)
    for info, task in _at_work(node):  # nobody there begins anything any more
        moved = hand_over_tasks and _handed_over(info, task, node)
        (handed if moved else working).append((info.agent_id, task))
    return Drained(node, tuple(held), tuple(handed), tuple(working))


def undrain(node: str) -> tuple[str, ...]:
    """Take that back; returns the agents that take tasks again. Who was paused for another reason stays so."""
    fleet().nodes.drain(node, drained=False)
    resumed = []
    for info in _agents(node):
        if info.paused and info.paused.reason == _reason(node):
            with suppress(NotHeld):
                control.resume(info.agent_id)
                resumed.append(info.agent_id)
    return tuple(resumed)


def await_empty(node: str, timeout: float) -> None:
    """Return when nothing is done on this node any more; :class:`StillWorking` if that takes longer."""
    deadline = time.monotonic() + timeout
    while at_work := [f"{info.agent_id} (task {task})" for info, task in _at_work(node)]:
        if time.monotonic() >= deadline:
            raise StillWorking(
                f"on {node} still work {', '.join(at_work)} after {timeout:g} s; nothing new begins there, and "
                "'torch-tasks node drain --hand-over' has others go on with it"
            )
        time.sleep(_PAUSE)


def _agents(node: str) -> list[AgentInfo]:
    return [info for info in fleet().registry.agents() if info.node == node]


def _at_work(node: str) -> list[tuple[AgentInfo, str]]:
    return [(info, info.current_task) for info in _agents(node) if info.online and info.current_task]


def _handed_over(info: AgentInfo, task: str, node: str) -> bool:
    with suppress(AgentUnable, InvalidHandover, TaskEnded):
        hand_over(task, info.role, _reason(node))
        return True
    return False


def _reason(node: str) -> str:
    return f"node {node} is drained"

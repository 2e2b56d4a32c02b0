"""What the events since a submission say of the task's turn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Usage
from torch_tasks.workers.programs.events import Event, EventKind
from torch_tasks.workers.programs.kind import Reading
from torch_tasks.workers.programs.prompt import belongs_to

_REPORTS = frozenset({EventKind.DONE, EventKind.FAIL, EventKind.PROGRESS})


@dataclass(frozen=True)
class Turn:
    """One prompt's turn, as far as it was told."""

    accepted: Event | None = None
    over: Event | None = None
    """STOPPED, FAILED, INTERRUPTED or ENDED."""
    report: Event | None = None
    """DONE or FAIL, from the agent itself."""
    asking: Event | None = None
    """The question that is open."""
    compacting: bool = False
    last: Event | None = None
    notes: tuple[str, ...] = ()
    """What the agent reported on its way."""
    usage: Usage | None = None

    @property
    def reading(self) -> Reading | None:
        """The state that the events tell, if they tell one."""
        if self.last is None:
            return None
        source, rule = _source(self.last)
        if self.over is not None:
            state, until = _after(self.over)
            return Reading(state, source, rule, until=until)
        if self.asking is not None:
            return Reading(AgentState.WAITING, source, rule, self.asking.question)
        if self.compacting:
            return Reading(AgentState.COMPACTING, source, rule)
        return Reading(AgentState.WORKING, source, rule) if self.accepted else None


def fold(events: Iterable[Event], tag: str, accepted: Event | None = None) -> Turn:
    """The turn of this prompt in what was told since it was submitted.

    Another prompt's turn may end before ours is accepted; what is said to the agent while it works belongs to ours.
    ``accepted`` is where ours begins if the program did not tell it.
    """
    turn = Turn(accepted=accepted, last=accepted)
    for event in events:
        if accepted is None or event.at >= accepted.at:
            turn = _with(turn, event, tag)
    return turn


def _with(turn: Turn, event: Event, tag: str) -> Turn:
    if event.kind in _REPORTS:
        return _reported(turn, event) if event.task in ("", tag.removeprefix("task ")) else turn
    if turn.accepted is None:
        begins = event.kind is EventKind.ACCEPTED and belongs_to(event.text, tag)
        return replace(turn, accepted=event, last=event) if begins else turn
    return _going_on(replace(turn, last=event), event)


def _reported(turn: Turn, event: Event) -> Turn:
    if event.kind is EventKind.PROGRESS:
        return replace(turn, notes=(*turn.notes, event.text))
    return replace(turn, report=event)


def _going_on(turn: Turn, event: Event) -> Turn:
    match event.kind:
        case EventKind.STOPPED | EventKind.INTERRUPTED | EventKind.ENDED | EventKind.FAILED:
            return turn if turn.over else replace(turn, over=event, asking=None, compacting=False)
        case EventKind.QUESTION:
            return replace(turn, asking=event)
        case EventKind.COMPACTING:
            return replace(turn, compacting=True)
        case EventKind.COMPACTED:
            return replace(turn, compacting=False)
        case EventKind.USAGE if event.usage:
            return replace(turn, usage=_sum(turn.usage, event.usage))
        case EventKind.ACCEPTED | EventKind.WORKING:
            # After a limit the program may go on with the same task.
            return replace(turn, asking=None, over=_unless_resumed(turn.over))
        case EventKind.RESOLVED:
            return replace(turn, asking=None)
    return turn


def _unless_resumed(over: Event | None) -> Event | None:
    if over and (over.kind is EventKind.INTERRUPTED or (over.kind is EventKind.FAILED and over.error == "limit")):
        return None
    return over


def _after(over: Event) -> tuple[AgentState, datetime | None]:
    if over.kind is EventKind.FAILED:
        states = {"limit": AgentState.LIMITED, "login": AgentState.LOGIN}
        return states.get(over.error or "", AgentState.ERROR), over.until
    return (AgentState.EXITED if over.kind is EventKind.ENDED else AgentState.READY), None


def _source(event: Event) -> tuple[str, str]:
    kind, _, name = event.origin.partition(" ")
    return ("hooks", name) if kind == "hook" else (event.origin or "events", str(event.kind))


def _sum(one: Usage | None, other: Usage) -> Usage:
    if one is None:
        return other
    costs = [usage.cost_usd for usage in (one, other) if usage.cost_usd is not None]
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost_usd=sum(costs) if costs else None,
    )

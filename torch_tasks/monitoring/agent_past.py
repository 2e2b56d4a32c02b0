"""What an agent did lately, and what became of its program."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import AwareDatetime

from torch_tasks.fleet import Fleet
from torch_tasks.model.board import BoardFilter
from torch_tasks.model.fields import KeptText, Model
from torch_tasks.monitoring.feed import seen_lately
from torch_tasks.monitoring.flow import FlowKind

_TASKS, _OF_EACH = 8, 12
"""So many of its latest tasks are looked at, and so many of the latest steps of each."""


class AgentStep(Model):
    """One thing that an agent did, or that became of it."""

    at: AwareDatetime
    what: str
    task: str | None = None
    """The task of which it is a step; none for what became of the agent's program."""
    note: KeptText = ""


def lately(fleet: Fleet, agent_id: str, limit: int) -> list[AgentStep]:
    """The latest steps, newest first: of its tasks, and of its program since this process began to follow the fleet."""
    found = [*_steps_of_tasks(fleet, agent_id), *_steps_of_program(agent_id, limit)]
    return sorted(found, key=lambda step: step.at, reverse=True)[:limit]


def _steps_of_tasks(fleet: Fleet, agent_id: str) -> Iterator[AgentStep]:
    own = BoardFilter(agent=agent_id).chosen(fleet.task_index.entries())[:_TASKS]
    ids = [entry.id for entry in own]
    for task, history in zip(ids, fleet.records.histories(ids, _OF_EACH), strict=True):
        for entry in history:
            if entry.agent == agent_id:
                yield AgentStep(at=entry.at, what=str(entry.step or entry.state), task=task, note=entry.note or "")


def _steps_of_program(agent_id: str, limit: int) -> Iterator[AgentStep]:
    events = seen_lately(limit, lambda event: event.kind is FlowKind.AGENTS and event.agent == agent_id)
    for event in events:
        if event.what not in ("task", "abilities"):  # its tasks say more
            yield AgentStep(at=event.at, what=event.what, note=event.note)

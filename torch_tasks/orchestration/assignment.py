"""Which agent gets a task when a caller wants one chosen."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from torch_tasks import keys
from torch_tasks.fleet import fleet
from torch_tasks.model.fields import Model, now
from torch_tasks.model.task import TaskRecord, TaskSpec
from torch_tasks.started_by_name import FORM_TEAM, load

if TYPE_CHECKING:
    from torch_tasks.facades.collaboration import form_team as form_team

_TRIES = 5
"""How many chosen agents may be reserved by another caller first."""

_WORD = re.compile(r"[\w.#+-]+")


class AssignmentStatus(StrEnum):
    ASSIGNED = "assigned"
    """The agent has it; if it does not begin in time, any able agent takes it."""
    QUEUED = "queued"
    """All able agents are busy; the first that is free takes it."""
    UNROUTABLE = "unroutable"
    """No live agent is able; the task waits for one, and one was asked for."""


class Assignment(Model):
    task_id: str
    agent_id: str | None
    assigned_at: datetime
    status: AssignmentStatus


def look_at_pools() -> None:
    """Run the autoscaler now instead of at beat's next time: a pool may serve what no live agent can do."""
    from torch_tasks.orchestration.scale_task import scale

    scale.apply_async(expires=fleet().settings.scale_seconds)


def assign(spec: TaskSpec) -> Assignment:
    """Accept a task and have the best free agent begin with it; the same id twice is one task.

    A spec without skills prefers agents with those that its prompt names.
    """
    from torch_tasks.tasks.run import run

    if record := fleet().records.find(spec.id):
        return _known_assignment(record)
    agent_id, status = (None, AssignmentStatus.QUEUED) if spec.after else _choose(spec)
    try:
        run.apply_async((spec,), task_id=spec.id, first_to=keys.agent_queue(agent_id) if agent_id else None)
    except BaseException:
        if agent_id and not spec.agent:
            fleet().soft_pins.drop(agent_id, spec.id)
        raise
    return Assignment(task_id=spec.id, agent_id=agent_id, assigned_at=now(), status=status)


def _choose(spec: TaskSpec) -> tuple[str | None, AssignmentStatus]:
    registry = fleet().registry
    if spec.agent:
        there = registry.find_serving(spec)
        return spec.agent, AssignmentStatus.ASSIGNED if there else AssignmentStatus.UNROUTABLE
    wished = spec.skills or named_skills(spec.prompt, registry.skills())
    for _ in range(_TRIES):
        best = registry.find_available_agents(spec.role, spec.skills, wished=wished, limit=1)
        if not best or not best[0].free:
            break
        if fleet().soft_pins.reserve(best[0].agent_id, spec.id):
            return best[0].agent_id, AssignmentStatus.ASSIGNED
    able = best or registry.find_serving(spec)
    return None, AssignmentStatus.QUEUED if able else AssignmentStatus.UNROUTABLE


def named_skills(text: str, skills: Iterable[str]) -> tuple[str, ...]:
    """Those of the skills that stand in the text as whole words: ``go`` not in google, ``c`` not in C++."""
    words = {word.rstrip(".-") for word in _WORD.findall(text.lower())}
    return tuple(skill for skill in skills if skill in words)


def _known_assignment(record: TaskRecord) -> Assignment:
    status = AssignmentStatus.ASSIGNED if record.agent else AssignmentStatus.QUEUED
    at = record.assigned_at or record.created_at
    return Assignment(task_id=record.spec.id, agent_id=record.agent, assigned_at=at, status=status)


def __getattr__(name: str) -> Any:
    if name == "form_team":  # programs import it from here, and it asks through the link, as all of theirs does
        return load(FORM_TEAM)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

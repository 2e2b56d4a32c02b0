"""Which agent gets a task when a caller wants one chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from torch_tasks import keys
from torch_tasks.fleet import fleet
from torch_tasks.model.fields import Model, now
from torch_tasks.model.task import TaskRecord, TaskSpec
from torch_tasks.orchestration.scaling import scale
from torch_tasks.started_by_name import FORM_TEAM, load
from torch_tasks.store.agents import AgentRegistry
from torch_tasks.tasks import recovery
from torch_tasks.tasks.run import run

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


def ask_for_spawn(spec: TaskSpec) -> None:
    """Run the autoscaler now instead of at beat's next time: a pool may serve what no live agent can do."""
    scale.apply_async(expires=fleet().settings.scale_seconds)


class TaskOrchestrator:
    """Gives each task to the best agent for it now."""

    def __init__(
        self, registry: AgentRegistry | None = None, *, spawn: Callable[[TaskSpec], object] = ask_for_spawn
    ) -> None:
        """``spawn`` is called with each task that no live agent can do."""
        self._registry = registry or fleet().registry
        self._spawn = spawn

    def assign_task(self, task_spec: TaskSpec | Mapping[str, Any]) -> Assignment:
        """Accept a task and have the best free agent begin with it.

        Role and skills of the spec are required; a spec without skills prefers agents with those that its prompt
        names. The same id twice is one task. Raises what :meth:`torch_tasks.Torch.enqueue` raises.
        """
        spec = _spec(task_spec)
        recovery.settle()
        if record := fleet().records.find(spec.id):
            return _known_assignment(record)
        agent_id, status = (None, AssignmentStatus.QUEUED) if spec.after else self._choose(spec)
        try:
            run.apply_async((spec,), task_id=spec.id, first_to=keys.agent_queue(agent_id) if agent_id else None)
        except BaseException:
            if agent_id and not spec.agent:
                fleet().soft_pins.drop(agent_id, spec.id)
            raise
        if status is AssignmentStatus.UNROUTABLE:
            self._spawn(spec)
        return Assignment(task_id=spec.id, agent_id=agent_id, assigned_at=now(), status=status)

    def requirements(self, spec: TaskSpec) -> tuple[str, ...]:
        """The skills a task asks for: those of its spec, else those of the fleet that its prompt names as words."""
        return spec.skills or named_skills(spec.prompt, self._registry.skills())

    def _choose(self, spec: TaskSpec) -> tuple[str | None, AssignmentStatus]:
        if spec.agent:
            there = self._registry.find_serving(spec)
            return spec.agent, AssignmentStatus.ASSIGNED if there else AssignmentStatus.UNROUTABLE
        wished = self.requirements(spec)
        for _ in range(_TRIES):
            best = self._registry.find_available_agents(spec.role, spec.skills, wished=wished, limit=1)
            if not best or not best[0].free:
                break
            if fleet().soft_pins.reserve(best[0].agent_id, spec.id):
                return best[0].agent_id, AssignmentStatus.ASSIGNED
        able = best or self._registry.find_serving(spec)
        return None, AssignmentStatus.QUEUED if able else AssignmentStatus.UNROUTABLE


def named_skills(text: str, skills: Iterable[str]) -> tuple[str, ...]:
    """Those of the skills that stand in the text as whole words: ``go`` not in google, ``c`` not in C++."""
    words = {word.rstrip(".-") for word in _WORD.findall(text.lower())}
    return tuple(skill for skill in skills if skill in words)


def _spec(asked: TaskSpec | Mapping[str, Any]) -> TaskSpec:
    """A valid spec; ``description`` is another name for ``prompt``."""
    if isinstance(asked, TaskSpec):
        return asked
    fields = dict(asked)
    if "description" in fields and "prompt" not in fields:
        fields["prompt"] = fields.pop("description")
    return TaskSpec.build(**fields)


def _known_assignment(record: TaskRecord) -> Assignment:
    status = AssignmentStatus.ASSIGNED if record.agent else AssignmentStatus.QUEUED
    at = record.assigned_at or record.created_at
    return Assignment(task_id=record.spec.id, agent_id=record.agent, assigned_at=at, status=status)


def __getattr__(name: str) -> Any:
    if name == "form_team":  # programs import it from here, and it asks through the link, as all of theirs does
        return load(FORM_TEAM)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

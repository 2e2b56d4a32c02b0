"""``TaskOrchestrator``: the best agent for a task, from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.model.task import TaskSpec
from torch_tasks.operations import tasks
from torch_tasks.orchestration.assignment import Assignment, AssignmentStatus


class TaskOrchestrator:
    """Gives each task to the best agent for it now."""

    def __init__(self, *, spawn: Callable[[TaskSpec], object] | None = None, link: Link | None = None) -> None:
        """``spawn`` is called with each task that no live agent can do; by default, the pools are looked at."""
        self._spawn = spawn
        self._link = link or own_link()

    def assign_task(self, task_spec: TaskSpec | Mapping[str, Any]) -> Assignment:
        """Accept a task and have the best free agent begin with it.

        Role and skills of the spec are required; a spec without skills prefers agents with those that its prompt
        names. The same id twice is one task. Raises what :meth:`torch_tasks.Torch.enqueue` raises.
        """
        asked = tasks.Assign.build(**_fields(task_spec), look_at_pools=self._spawn is None)
        assigned = self._link.perform(tasks.assign, asked)
        if self._spawn and assigned.status is AssignmentStatus.UNROUTABLE:
            self._spawn(asked.spec)
        return assigned


def _fields(asked: TaskSpec | Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec; ``description`` is another name for ``prompt``."""
    if isinstance(asked, TaskSpec):
        return {name: getattr(asked, name) for name in TaskSpec.model_fields}
    fields = dict(asked)
    if "description" in fields and "prompt" not in fields:
        fields["prompt"] = fields.pop("description")
    return fields

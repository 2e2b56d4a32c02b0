"""What a task needs of the agent worker it runs in. The agent worker fulfils it; nothing here knows how."""

from __future__ import annotations

from collections.abc import Container
from typing import Protocol

from torch_tasks.models import AgentInfo, TaskResult, TaskSpec


class Detached(Exception):
    """The worker leaves while the agent works on; the next worker of this id takes the task up again."""


class AgentHost(Protocol):
    """The agent of this process."""

    @property
    def info(self) -> AgentInfo:
        """The agent's entry in the registry, with its incarnation."""

    @property
    def leaving(self) -> bool:
        """This worker is about to stop."""

    def execute(self, spec: TaskSpec, attempt: int) -> TaskResult:
        """Have the agent do the task and return how it ended; idempotent by task id. May raise :class:`Detached`."""

    def cancel(self, task_ids: Container[str]) -> None:
        """Interrupt the running task if it is one of these."""

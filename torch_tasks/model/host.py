"""The interface through which tasks use the agent worker or node worker that they run in."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from torch_tasks.model.agent import AgentInfo, RetireOrder
from torch_tasks.model.spawn import Spawned
from torch_tasks.model.task import TaskResult, TaskSpec


class Detached(Exception):
    """The worker stops while the agent continues; the agent's next worker takes the task up again."""


class UsageLimited(Exception):
    """The agent's account has reached a limit, which ends at ``until`` if that is known; others may take the task."""

    def __init__(self, message: str, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


class AgentHeld(Exception):
    """The agent is paused, stopped or held up, and has not done the task; other agents may take it."""


class HandedOver(Exception):
    """The agent has given the task up, and another one gets it."""


class TaskDelivery(NamedTuple):
    """The message that brought a task, to be put back if the broker forgets it."""

    tag: str
    message: str


class AgentHost(Protocol):
    """The agent of this process, as a task sees it."""

    @property
    def info(self) -> AgentInfo:
        """The agent's entry in the registry, with its incarnation."""

    @property
    def is_leaving(self) -> bool:
        """Whether this worker is about to stop."""

    @property
    def is_retiring(self) -> bool:
        """Whether the agent is retiring: it begins no other task."""

    @property
    def unfinished_task(self) -> str | None:
        """The task that the last worker left in the pane; it comes before any other."""

    @property
    def hold_reason(self) -> str | None:
        """Why the agent begins no task now, if it is paused or stopped."""

    def execute(self, spec: TaskSpec, attempt: int, delivery: TaskDelivery | None) -> TaskResult:
        """Have the agent do the task and return how it ended; idempotent by task and attempt.

        May raise :class:`Detached`, :class:`UsageLimited`, :class:`AgentHeld`, :class:`HandedOver`, or
        :class:`~torch_tasks.errors.StaleWriter` when another agent has the task by now.
        """

    def settle(self, task_id: str, record: Mapping[str, str]) -> None:
        """Forget a task of which this host has nothing more to do, as its record says."""

    def drop_lost_task(self) -> None:
        """Drop the unfinished task of the pane if its record names another owner or an end by now."""

    def cancel(self, task_ids: Container[str]) -> None:
        """Interrupt the running task if it is one of these."""

    def detach(self) -> None:
        """Leave a running task to the next worker; the agent continues. Safe to call from a signal handler."""


class NodeHost(Protocol):
    """The machine of this process, as a task sees it."""

    def start_agent(self, spawned: Spawned) -> None:
        """Keep this agent alive from now on; a second call for it changes nothing."""

    def retire_agent(self, agent_id: str, order: RetireOrder) -> None:
        """End the agent in the way that the order says, and do not start its worker again."""

    def release_agent(self, agent_id: str) -> None:
        """Start again an agent that is in quarantine, or that is declared here and was retired."""

"""What a task needs of the agent worker it runs in. The agent worker fulfils it; nothing here knows how."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from torch_tasks.model.agent import AgentInfo, RetireOrder
from torch_tasks.model.spawn import Spawned
from torch_tasks.model.task import TaskResult, TaskSpec


class Detached(Exception):
    """The worker leaves while the agent works on; the next worker of this id takes the task up again."""


class UsageLimited(Exception):
    """The agent's account has used up what it may: the task is not to blame, and others may take it.

    ``until`` is when the limit ends, if that is known.
    """

    def __init__(self, message: str, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


class AgentHeld(Exception):
    """The agent is paused or stopped: it takes no work, or had to let go of it. The task is not to blame."""


class HandedOver(Exception):
    """The agent has let go of the task, which goes to another one."""


class TaskDelivery(NamedTuple):
    """The message by which a task came: what must be put back if the broker forgets it."""

    tag: str
    message: str


class AgentHost(Protocol):
    """The agent of this process, as a task sees it."""

    @property
    def info(self) -> AgentInfo:
        """The agent's entry in the registry, with its incarnation."""

    @property
    def leaving(self) -> bool:
        """This worker is about to stop."""

    @property
    def retiring(self) -> bool:
        """The agent begins no other task."""

    @property
    def unfinished_task(self) -> str | None:
        """The task that the pane was left with and that is not settled yet: it comes before any other."""

    @property
    def hold_reason(self) -> str | None:
        """Why the agent begins nothing now, if it is paused or stopped."""

    def execute(self, spec: TaskSpec, attempt: int, delivery: TaskDelivery | None) -> TaskResult:
        """Have the agent do the task and return how it ended; idempotent by task and attempt.

        May raise :class:`Detached`, :class:`UsageLimited`, :class:`AgentHeld`, :class:`HandedOver`, or
        :class:`~torch_tasks.errors.StaleWriter` when another agent has the task by now.
        """

    def settle(self, task_id: str, account: Mapping[str, str]) -> None:
        """Nothing more is to be done for this task here: its record, the account, says what became of it."""

    def drop_lost_task(self) -> None:
        """Have the pane let go of the task that it was left with if the task's record has gone on without it."""

    def cancel(self, task_ids: Container[str]) -> None:
        """Interrupt the running task if it is one of these."""

    def detach(self) -> None:
        """Let go of a running task without touching the agent. Safe to call from a signal handler."""


class NodeHost(Protocol):
    """The machine of this process, with the agents that are kept there."""

    def start_agent(self, spawned: Spawned) -> None:
        """Keep this agent alive from now on; the same one twice is one."""

    def retire_agent(self, agent_id: str, order: RetireOrder) -> None:
        """Have the agent end, as far as the order lets it, and its worker not be started again."""

    def release_agent(self, agent_id: str) -> None:
        """Try again an agent that was left down, or that is declared here and was retired."""

"""What a task needs of the agent worker it runs in. The agent worker fulfils it; nothing here knows how."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from torch_tasks.model.agent import AgentInfo, RetireOrder
from torch_tasks.model.limits import Resources
from torch_tasks.model.spawn import Spawned
from torch_tasks.model.task import TaskResult, TaskSpec


class Detached(Exception):
    """The worker leaves while the agent works on; the next worker of this id takes the task up again."""


class Limited(Exception):
    """The agent's account has used up what it may: the task is not to blame, and others may take it.

    ``until`` is when the limit ends, if that is known.
    """

    def __init__(self, message: str, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


class Held(Exception):
    """The agent takes no work, or had to let go of it: paused or stopped. The task is not to blame."""


class HandedOver(Exception):
    """The agent has let go of the task, which goes to another one."""


class Delivery(NamedTuple):
    """The message by which a task came: what must be put back if the broker forgets it."""

    tag: str
    message: str


class AgentHost(Protocol):
    """The agent of this process."""

    @property
    def info(self) -> AgentInfo:
        """The agent's entry in the registry, with its incarnation."""

    @property
    def leaving(self) -> bool:
        """This worker is about to stop."""

    @property
    def retiring(self) -> bool:
        """The agent takes no task that it has not begun."""

    @property
    def busy(self) -> bool:
        """Something is being done with the pane at this moment."""

    @property
    def begun(self) -> str | None:
        """The task that the pane was left with and that is not settled yet: it comes before any other."""

    @property
    def held(self) -> str | None:
        """Why the agent begins nothing now, if somebody paused or stopped it."""

    def execute(self, spec: TaskSpec, attempt: int, delivery: Delivery | None) -> TaskResult:
        """Have the agent do the task and return how it ended; idempotent by task and attempt.

        May raise :class:`Detached`, :class:`Limited`, :class:`Held`, :class:`HandedOver`, or
        :class:`~torch_tasks.errors.StaleWriter` when another agent has the task by now.
        """

    def settle(self, task_id: str, account: Mapping[str, str]) -> None:
        """The record says what became of this task: nothing more is to be done for it here.

        The account is kept, should the broker forget it.
        """

    def let_go(self) -> None:
        """Drop the task that the pane was left with if its record has gone on without it."""

    def answer(self, task_id: str, reply: str) -> bool:
        """Have the agent get the answer it waits for; false if it does not work on this task."""

    def resources(self) -> Resources:
        """What the agent's terminal uses of this machine."""

    def show_screen(self) -> None:
        """Somebody watches the agent's screen from elsewhere, for a while from now."""

    def look_again(self) -> None:
        """Something was heard of the running task."""

    def cancel(self, task_ids: Container[str]) -> None:
        """Interrupt the running task if it is one of these."""

    def detach(self) -> None:
        """Let go of a running task without touching the agent. Safe to call from a signal handler."""

    def retire(self) -> None:
        """An order to retire lies in the agent's folder. Safe to call from anywhere."""


class NodeHost(Protocol):
    """The machine of this process, with the agents that are kept there."""

    def start_agent(self, spawned: Spawned) -> None:
        """Keep this agent alive from now on; the same one twice is one."""

    def retire_agent(self, agent_id: str, order: RetireOrder) -> None:
        """Have the agent end, as far as the order lets it, and its worker not be started again."""

    def release_agent(self, agent_id: str) -> None:
        """Try again an agent that was left down, or that is declared here and was retired."""

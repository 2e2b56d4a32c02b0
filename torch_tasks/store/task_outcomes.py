"""How the steps on a task's record end."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from torch_tasks.model.asker import Asker
from torch_tasks.model.handover import Handover
from torch_tasks.model.task import TaskState
from torch_tasks.transport.joining import Placing


class Acceptance(StrEnum):
    NEW = "new"
    KNOWN = "known"
    """The same task was accepted before."""
    OTHER = "other"
    """Another task was accepted under this id."""
    UNKNOWN = "unknown"
    """It is to begin after a task that does not exist."""


class NewTask(NamedTuple):
    """A task that is to be accepted."""

    task_id: str
    wire: Mapping[str, Any]
    queue: str
    by: Asker | None = None
    """Who asked for it; None: who asks now."""
    trace: str | None = None
    placing: Placing | None = None
    """Where its message is to lie, if that goes with it."""


class Accepted(NamedTuple):
    outcome: Acceptance
    detail: str
    """The state of the task; with ``UNKNOWN``, the id of the task that does not exist."""
    new_queue: bool

    @property
    def new_record(self) -> bool:
        return self.outcome is Acceptance.NEW

    @property
    def is_pending(self) -> bool:
        """Whether the task waits for others, so that no agent may get its message."""
        return self.detail == TaskState.PENDING


class Release(StrEnum):
    """What became of a task that waited for others."""

    QUEUED = "queued"
    WAITS = "waits"
    FAILED = "failed"
    """One of those that it waits for has not succeeded."""


class Outline(NamedTuple):
    state: TaskState
    queue: str
    revision: int


class Take(StrEnum):
    """How an agent's attempt to take a task ended."""

    TAKEN = "taken"
    MINE = "mine"
    """The agent owned the task already."""
    TAKEN_OVER = "taken over"
    """The former owner is dead."""
    OWNED = "owned"
    """The task belongs to an agent that lives or will be back."""
    ENDED = "ended"


class Taken(NamedTuple):
    outcome: Take
    owner: str
    """The present or former owner."""
    account: dict[str, str]
    """All that the record holds now."""


class Ownership(NamedTuple):
    """What a task's record says to the agent that works on it."""

    revision: int
    """0 if there is no record."""
    owner: tuple[str, str, int] | None
    """The agent that holds the task: its id, node and incarnation."""
    cancel_requested: bool
    handover: Handover | None = None
    """To which agent the task goes as soon as its owner releases it."""

"""The board: the tasks that somebody looks for, page by page, and how many there are in each state."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, NamedTuple, Self

from pydantic import AwareDatetime, StringConstraints

from torch_tasks.model.fields import KeptText, Model
from torch_tasks.model.task import Priority, TaskState


class BoardPlace(NamedTuple):
    """Where a task stands on the board: by the microsecond in which it was accepted, then by its id."""

    accepted_us: int
    id: str

    @classmethod
    def read(cls, text: str) -> Self:
        moment, _, task_id = text.partition("-")
        return cls(int(moment), task_id)

    def __str__(self) -> str:
        return f"{self.accepted_us}-{self.id}"


PlaceText = Annotated[str, StringConstraints(pattern=r"^\d{1,19}-[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]


class BoardEntry(NamedTuple):
    """What the board knows of each task, to choose by."""

    place: BoardPlace
    state: TaskState
    title: str
    role: str | None
    agent: str | None
    """Who has it or had it last; before that, whom it is for."""
    trace_id: str

    words: str
    """The title as words are looked for in it."""

    @property
    def id(self) -> str:
        return self.place.id


class BoardFilter(NamedTuple):
    """Which tasks are looked for; what is empty excludes none."""

    role: str = ""
    agent: str = ""
    trace_id: str = ""
    words: str = ""
    """All of them are in the title, or the id begins with one."""

    def chosen(self, entries: Sequence[BoardEntry]) -> Sequence[BoardEntry]:
        if self == BoardFilter():
            return entries
        words = self.words.casefold().split()
        return [
            one
            for one in entries
            if (not self.role or one.role == self.role)
            and (not self.agent or one.agent == self.agent)
            and (not self.trace_id or one.trace_id == self.trace_id)
            and (not words or _has(one, words))
        ]


def _has(entry: BoardEntry, words: Collection[str]) -> bool:
    return all(word in entry.words or entry.id.casefold().startswith(word) for word in words)


class BoardRow(Model):
    """One task in a row."""

    id: str
    title: KeptText
    state: TaskState
    forged: str | None = None
    """Why nobody may believe that it ended like this."""
    role: str | None = None
    agent: str | None = None
    """Who has it or had it last."""
    wanted: str | None = None
    """The one agent that it is for."""
    priority: Priority
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    attempts: int = 0
    unroutable: bool = False
    cancel_requested: bool = False
    note: KeptText = ""
    """Why it waits, what it asks, or how it ended."""


class Board(Model):
    """One page of the board."""

    rows: tuple[BoardRow, ...]
    """The latest first."""
    counts: dict[TaskState, int]
    """How many tasks are in each state, of all that are looked for, whatever the states that are asked for."""
    older: PlaceText | None = None
    """What comes after this page is asked for with it; None if nothing does."""
    roles: tuple[str, ...] = ()
    """The roles that tasks ask for."""
    agents: tuple[str, ...] = ()
    """The agents that the fleet knows, by id."""

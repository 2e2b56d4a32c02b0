"""Who shall take no work: what is paused or stopped, by whom and why. The wire format of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, RootModel

EVERYBODY = "all"
"""The scope of a pause of the whole fleet."""
STOP = "stop"
"""The scope of the fleet's stop."""


def agent_scope(agent_id: str) -> str:
    """The scope of one agent's pause."""
    return f"agent {agent_id}"


def role_scope(role: str) -> str:
    """The scope of the pause of all agents that have this role."""
    return f"role {role}"


def _line(text: str) -> str:
    """As one line that steers nobody's terminal."""
    return "".join(char if char.isprintable() else " " for char in text[:_REASON_LIMIT]).strip()


_REASON_LIMIT = 500
Line = Annotated[str, AfterValidator(_line)]


class Hold(BaseModel):
    """Somebody said that no work is to be taken, or that it may be again."""

    model_config = ConfigDict(frozen=True)

    by: str
    reason: Line = ""
    at: AwareDatetime
    lifted: bool = False
    interrupt: bool = False
    """What the agents do at that moment is interrupted, as a stop does."""
    revision: int = 0
    """Grows with each word on the same scope, in the broker's milliseconds; 0: the broker has not heard of it."""

    def __str__(self) -> str:
        return f"by {self.by}" + (f": {self.reason}" if self.reason else "")


class Stop(Hold):
    """A machine's own stop, as its file says."""

    fleet: bool = False
    """It is the whole fleet's, and ends with that."""


class Book(RootModel[dict[str, Hold]]):
    """The last word on each scope."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Self:
        """The book as the broker keeps it."""
        return cls({scope: Hold.model_validate_json(text) for scope, text in fields.items()})

    def standing(self, scope: str) -> Hold | None:
        """The hold on this scope, unless it was lifted."""
        hold = self.root.get(scope)
        return hold if hold and not hold.lifted else None

    def pauses(self) -> Iterator[tuple[str, Hold]]:
        """Every scope that is paused now."""
        return ((scope, hold) for scope, hold in sorted(self.root.items()) if not hold.lifted and scope != STOP)

    def over(self, agent_id: str, role: str) -> Hold | None:
        """The pause that this agent is under: its own before its role's before everybody's."""
        scopes = (agent_scope(agent_id), role_scope(role), EVERYBODY)
        return next(filter(None, map(self.standing, scopes)), None)

    def later(self, other: Book) -> dict[str, Hold]:
        """What this book says later than the other."""
        return {
            scope: hold
            for scope, hold in self.root.items()
            if scope not in other.root or hold.revision > other.root[scope].revision
        }

    def merged(self, other: Book) -> Self:
        """The later word of both on each scope."""
        return type(self)({**self.root, **other.later(self)})

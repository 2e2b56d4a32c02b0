"""Holds: which agents take no work because they are paused or stopped, who ordered it, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, RootModel

from torch_tasks.model.asker import Asker

EVERYBODY = "all"
"""The scope of a pause of the whole fleet."""
STOP = "stop"
"""The scope of the fleet's stop."""
_REASON_LIMIT = 500
_LAST_REVISION = 10**14
"""The largest number that Lua writes as JSON digit by digit."""


def agent_scope(agent_id: str) -> str:
    return f"agent {agent_id}"


def agent_in(scope: str) -> str | None:
    """The one agent that this is about, if it is about one."""
    kind, _, agent_id = scope.partition(" ")
    return agent_id if kind == "agent" else None


def role_scope(role: str) -> str:
    return f"role {role}"


def _one_line(text: str) -> str:
    """As one line, without control characters for a terminal."""
    return "".join(char if char.isprintable() else " " for char in text[:_REASON_LIMIT]).strip()


OneLine = Annotated[str, AfterValidator(_one_line)]


class Hold(BaseModel):
    """An order to take no work, or to take it again: by whom, why, and since when."""

    model_config = ConfigDict(frozen=True)

    by: Asker
    reason: OneLine = ""
    at: AwareDatetime
    lifted: bool = False
    interrupt: bool = False
    """Whether the agents are interrupted at once, as by a stop."""
    task: str | None = None
    """The task in which an agent ordered it."""
    revision: int = Field(0, ge=0, lt=_LAST_REVISION)
    """Grows with each hold on the same scope, in the broker's milliseconds; 0: unknown to the broker."""
    signature: str | None = None
    """Of who wrote it to the broker, over its scope and all else but the revision."""

    def __str__(self) -> str:
        return f"by {self.by.name}" + (f": {self.reason}" if self.reason else "")


class Stop(Hold):
    """A machine's stop, as its file says."""

    fleet: bool = False
    """Whether the whole fleet is stopped; then it ends with that stop."""


class LatestHolds(RootModel[dict[str, Hold]]):
    """The latest hold on each scope, lifted or not."""

    model_config = ConfigDict(frozen=True)

    def in_force(self, scope: str) -> Hold | None:
        hold = self.root.get(scope)
        return hold if hold and not hold.lifted else None

    def pauses(self) -> Iterator[tuple[str, Hold]]:
        return ((scope, hold) for scope, hold in sorted(self.root.items()) if not hold.lifted and scope != STOP)

    def pause_of(self, agent_id: str, role: str) -> Hold | None:
        """The pause of this agent: its own before its role's before the fleet's."""
        scopes = (agent_scope(agent_id), role_scope(role), EVERYBODY)
        return next(filter(None, map(self.in_force, scopes)), None)

    def later(self, other: LatestHolds) -> dict[str, Hold]:
        return {
            scope: hold
            for scope, hold in self.root.items()
            if scope not in other.root or hold.revision > other.root[scope].revision
        }

    def merged(self, other: LatestHolds) -> Self:
        """The later hold of the two on each scope."""
        return type(self)({**self.root, **other.later(self)})

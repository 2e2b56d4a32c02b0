"""Spawning: the request that an agent be started, how far that is, and pools of such agents."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from torch_tasks.errors import InvalidTask
from torch_tasks.model.agent import AgentFields, AgentSpec, SingleAgentFields
from torch_tasks.model.fields import AgentId, Model, Skills, TaskId, readable
from torch_tasks.model.options import Option


class SpawnState(StrEnum):
    """How far a spawned agent is."""

    RESERVED = "reserved"
    """It has its place on a node, which starts it."""
    READY = "ready"
    FAILED = "failed"
    """It could not be started; its place is free again."""
    LOST = "lost"
    """It was given up while its node was away; its id is not given to another agent before the node knows."""

    @property
    def sources(self) -> frozenset[SpawnState]:
        """The states from which this one may follow."""
        return frozenset(state for state, successors in SPAWN_TRANSITIONS.items() if self in successors)


SPAWN_TRANSITIONS: dict[SpawnState, frozenset[SpawnState]] = {
    SpawnState.RESERVED: frozenset({SpawnState.READY, SpawnState.FAILED, SpawnState.LOST}),
    SpawnState.READY: frozenset(),
    SpawnState.FAILED: frozenset(),
    SpawnState.LOST: frozenset({SpawnState.FAILED}),
}
"""An agent that was ready leaves the list when it has retired; the reason of a failure is kept for a while."""


class SpawnRequest(SingleAgentFields):
    """Which agent is wanted, within which limits, and where."""

    id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex)
    """The same request twice is one agent."""
    agent_id: Annotated[AgentId | None, Option("--id")] = Field(
        None, description="Its id (default: the role and a number)."
    )
    node: AgentId | None = Field(None, description="The machine it shall be on (default: the one with most room).")
    labels: Annotated[Skills, Option("--label")] = Field(
        (), description="What its machine must have, as `gpu`; repeat for more."
    )
    pool: str | None = None

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A request from what a person or program passed, or :class:`InvalidTask` in words."""
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            raise InvalidTask(f"no agent can be started from this: {readable(error)}") from None


class Spawned(Model):
    """An agent that was asked for and has a place."""

    request: SpawnRequest
    agent_id: AgentId
    node: AgentId
    at: int
    """When it got its place, in the broker's milliseconds."""
    state: SpawnState = SpawnState.RESERVED
    reason: str = ""

    @property
    def agent(self) -> AgentSpec:
        """The agent as its node worker keeps it."""
        asked = self.request
        return AgentSpec(id=self.agent_id, **asked.agent_fields)


class Pool(AgentFields):
    """Agents of one kind, whose number the fleet keeps between ``min`` and ``max``."""

    min: int = Field(0, ge=0)
    max: int = Field(ge=1)
    labels: Skills = ()
    """What the nodes of its agents must have."""

    @property
    def name(self) -> str:
        """Identifies it among the fleet's pools."""
        return ":".join((self.role, "+".join(self.skills), self.kind, "+".join(self.labels)))

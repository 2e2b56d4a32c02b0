"""Spawning: the request to start an agent, how far that has come, and pools of such agents."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from torch_tasks.errors import InvalidTask
from torch_tasks.model.agent import AgentFields, AgentSpec, SingleAgentFields
from torch_tasks.model.fields import AgentId, HostedId, Model, Skills, TaskId, readable
from torch_tasks.model.options import Option


class SpawnState(StrEnum):
    RESERVED = "reserved"
    """It has a place on a node, which starts it."""
    READY = "ready"
    FAILED = "failed"
    """It could not be started; its place is free again."""
    LOST = "lost"
    """It was given up while its node was away; its id stays taken until the node knows that."""

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
"""A ready agent leaves the list when it has retired; a failed one after a while, with its reason."""


class SpawnWish(SingleAgentFields):
    """An agent that a caller wants."""

    id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex)
    """Two requests with one id are one agent."""
    agent_id: Annotated[HostedId | None, Option("--id")] = Field(
        None, description="Its id (default: the role and a number)."
    )
    node: AgentId | None = Field(None, description="The machine it shall be on (default: the one with most room).")
    labels: Annotated[Skills, Option("--label")] = Field(
        (), description="What its machine must have, as `gpu`; repeat for more."
    )

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A request of these fields, or :class:`InvalidTask` that says what is wrong with them."""
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            raise InvalidTask(f"no agent can be started from this: {readable(error)}") from None


class SpawnRequest(SpawnWish):
    pool: str | None = None
    """The pool that it is started for."""


class Spawned(Model):
    """A requested agent that was given a place on a node."""

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
        return AgentSpec(id=self.agent_id, **self.request.agent_fields)


class SpawnTicket(Model):
    """A request to start an agent, as it was accepted."""

    id: TaskId
    seconds: float
    """Within so long the agent is ready, or has failed; it does not come later."""


class SpawnOutcome(Model):
    """What became of a request to start an agent."""

    agent_id: AgentId | None = None
    node: AgentId | None = None
    ready: bool = False
    error: str = ""
    """The name of the error, if it is not ready."""
    reason: str = ""


class Pool(AgentFields):
    """Agents of one kind; the fleet keeps their number between ``min`` and ``max``."""

    min: int = Field(0, ge=0)
    max: int = Field(ge=1)
    labels: Skills = ()
    """The labels that the nodes of its agents must have."""

    @property
    def name(self) -> str:
        """Identifies it among the fleet's pools."""
        return ":".join((self.role, "+".join(self.skills), self.kind, "+".join(self.labels)))

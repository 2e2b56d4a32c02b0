"""Where an agent is addressed: by its id, or as ``AGENT@FLEET`` in another fleet."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import AfterValidator, StringConstraints, TypeAdapter

from torch_tasks.model.fields import AgentId

FleetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=48)]
"""What this fleet's settings call another one."""
_AT = "@"
_ID: TypeAdapter[str] = TypeAdapter(AgentId)


class FarAgent(NamedTuple):
    """An agent of another fleet."""

    agent_id: str
    fleet: str


def far_agent(address: str | None) -> FarAgent | None:
    """The agent of another fleet that the address names, if it does."""
    agent_id, at, fleet = (address or "").partition(_AT)
    return FarAgent(agent_id, fleet) if at else None


def _checked(address: str) -> str:
    agent_id, at, fleet = address.partition(_AT)
    checked = _ID.validate_python(agent_id)
    return f"{checked}{at}{_ID.validate_python(fleet)}" if at else checked


Address = Annotated[str, AfterValidator(_checked)]
"""The id of an agent, or ``AGENT@FLEET``."""

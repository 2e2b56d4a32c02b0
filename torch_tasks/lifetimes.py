"""How long an agent is there, and how it ends."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Lifetime(StrEnum):
    """How long an agent is kept alive."""

    PERMANENT = "permanent"
    TEMPORARY = "temporary"
    """Until it has done what there was to do and nobody has needed it for a while."""


class Leave(StrEnum):
    """What becomes of the task that a retiring agent works on."""

    FINISH = "finish"
    """It is finished first, however long that takes."""
    HAND_OVER = "hand over"
    """Another agent goes on with it."""
    NOW = "now"
    """It is put back, for whoever is able."""


class RetireOrder(BaseModel):
    """That an agent is to end; kept in its folder until it has."""

    model_config = ConfigDict(frozen=True)

    leave: Leave = Leave.FINISH
    by: str
    note: str = ""


class Farewell(BaseModel):
    """What is known of an agent that has ended."""

    model_config = ConfigDict(frozen=True)

    agent_id: str
    node: str
    incarnation: int
    by: str
    note: str = ""
    at: AwareDatetime
    file: str
    """Where on its node its last screen and its summary are."""
    tasks: tuple[str, ...] = ()
    """The tasks that it left: given back, or failed where they asked for it alone."""
    messages: tuple[str, ...] = ()
    """The messages that waited for it and are dead."""

"""What stands in front of a backup: what is in it, of which fleet, and what is missing."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from torch_tasks.model.fields import Model

LAYOUT = 1
"""The layout of the archives that this version writes; a greater one is of a later version."""


class Part(Model):
    """One file in the archive."""

    name: str
    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class NodePart(Model):
    """One machine of the fleet, and what of it is in the archive."""

    node: str
    files: int = 0
    why_missing: str = ""
    """Why nothing of its disk is in the archive; empty if it is there."""


class Manifest(Model):
    layout: int = LAYOUT
    id: str
    version: str
    """Torch's."""
    fleet: str
    """The fleet's name; empty where nothing is signed."""
    node: str
    """The machine that made it."""
    place: str
    """Where the broker was, as that machine names it."""
    made_at: AwareDatetime
    """When it was begun: what came later is not in it."""
    seconds: float = 0.0
    epoch: int = 0
    """How often the broker had been reconciled."""
    keys: int = 0
    open: int = 0
    """How many tasks in it have not ended."""
    ended: int = 0
    without_message: tuple[str, ...] = ()
    """Open tasks whose message was on no broker; the ledger of who enqueued one sends it anew."""
    nodes: tuple[NodePart, ...] = ()
    has_keys: bool = False
    """Whether the keys of the machine that made it are in it, sealed."""
    parts: tuple[Part, ...] = ()

    @property
    def missing(self) -> tuple[NodePart, ...]:
        return tuple(one for one in self.nodes if one.why_missing)

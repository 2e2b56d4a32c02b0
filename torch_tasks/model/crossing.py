"""What this fleet has accepted for another one."""

from __future__ import annotations

import json
import time
from typing import Any

from pydantic import Field

from torch_tasks.model.address import FleetName
from torch_tasks.model.fields import Model


class Crossing(Model):
    """A request for another fleet, which this one has accepted and brings there."""

    id: str
    """That of its message or task: the other fleet does it once."""
    fleet: FleetName
    operation: str
    fields: str
    """What is asked for, as JSON."""
    by: str
    """Who asked here; they are told if the other fleet refuses."""
    target: str
    """Whom it is for, there."""
    accepted_at: float = Field(default_factory=time.time)
    refusal: str = ""
    """Why the other fleet does not take it."""

    def fields_at(self, moment: float) -> dict[str, Any] | None:
        """What to ask for at this moment: the time that it may take began here. None if that is over."""
        fields: dict[str, Any] = json.loads(self.fields)
        if (expires := fields.get("expires")) is None:
            return fields
        left = expires - max(0.0, moment - self.accepted_at)
        return {**fields, "expires": left} if left > 0 else None

    def asks_the_same_as(self, other: Crossing) -> bool:
        """Whether both are one request, wherever in a trace."""
        return self.target == other.target and _without_place(self.fields) == _without_place(other.fields)


def _without_place(fields: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(fields).items() if name != "traceparent"}

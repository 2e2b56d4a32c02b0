"""The audit of messages: what was refused, and what reached its receiver past the broker."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import redis
from pydantic import AwareDatetime

from torch_tasks import keys
from torch_tasks.model.fields import Model
from torch_tasks.model.message import Message

_KEPT = 10_000


class AuditKind(StrEnum):
    """What is audited."""

    REFUSED = "refused"
    """The policy does not let it go, or its receiver is locked."""
    INVALID = "invalid"
    """It has not the form that its kind must have."""
    UNKNOWN = "unknown"
    """There is no such receiver."""
    FULL = "full"
    """The receiver's inbox had no room."""
    FALLBACK = "fallback"
    """It came past the broker, while that was away."""


class AuditEntry(Model):
    """One thing that was audited."""

    at: AwareDatetime
    what: AuditKind
    sender: str
    target: str
    message_id: str
    why: str = ""


class Audit:
    """The latest of it, on the broker; whoever listens to the channel of the same name hears it, too."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def note(self, what: AuditKind, message: Message, why: str) -> None:
        """Keep one thing."""
        told: dict[Any, Any] = {
            "what": str(what),
            "sender": message.sender,
            "target": message.target,
            "message_id": message.id,
            "why": why,
        }
        number = str(self._client.xadd(keys.AUDIT, told, maxlen=_KEPT, approximate=True))
        self._client.publish(keys.AUDIT, _entry(number, told).model_dump_json())

    def latest(self, limit: int) -> list[AuditEntry]:
        """The latest entries, oldest first."""
        found: Any = self._client.xrevrange(keys.AUDIT, count=limit)
        return [_entry(str(number), fields) for number, fields in reversed(found)]


def _entry(number: str, fields: dict[Any, Any]) -> AuditEntry:
    moment = datetime.fromtimestamp(int(number.split("-")[0]) / 1000, UTC)
    return AuditEntry.model_validate({**fields, "at": moment})

"""The messages that were refused or did not go through the broker: every statement on what is kept of them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import redis
from pydantic import AwareDatetime

from torch_tasks import keys
from torch_tasks.errors import Unreadable
from torch_tasks.model.fields import KeptText, Model
from torch_tasks.model.message import Message
from torch_tasks.model.reader import unreadable_if_wrong
from torch_tasks.redaction import redacted
from torch_tasks.store.notices import Notices

_KEPT = 10_000


class AuditKind(StrEnum):
    REFUSED = "refused"
    """The policy forbids it, or its receiver is locked."""
    INVALID = "invalid"
    """It has not the form that its kind must have."""
    UNKNOWN = "unknown"
    """There is no such receiver."""
    FULL = "full"
    """The receiver's inbox had no room."""
    FORGED = "forged"
    """Nobody who may speak for its sender signed it as it is; its receiver did not get it."""
    FALLBACK = "fallback"
    """It was delivered without the broker, which was away."""


class AuditEntry(Model):
    at: AwareDatetime
    what: AuditKind
    sender: str
    target: str
    message_id: str
    why: KeptText = ""


class Audit:
    """The latest entries, on the broker; each reaches those who watch the fleet."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def note(self, what: AuditKind, message: Message, why: str) -> None:
        fields: dict[Any, Any] = {
            "what": str(what),
            "sender": message.sender,
            "target": message.target,
            "message_id": message.id,
            "why": redacted(why),
        }
        number = str(self._client.xadd(keys.AUDIT, fields, maxlen=_KEPT, approximate=True))
        Notices(self._client).note_audit(_entry(number, fields).model_dump_json())

    def latest(self, limit: int) -> list[AuditEntry]:
        found: Any = self._client.xrevrange(keys.AUDIT, count=limit)
        entries: list[AuditEntry] = []
        for number, fields in reversed(found):
            with suppress(Unreadable), unreadable_if_wrong():  # not written by Torch
                entries.append(_entry(str(number), fields))
        return entries


def _entry(number: str, fields: dict[Any, Any]) -> AuditEntry:
    moment = datetime.fromtimestamp(int(number.split("-")[0]) / 1000, UTC)
    return AuditEntry.model_validate({**fields, "at": moment})

"""The audit of this machine: which acts and decisions are noted, and that they are before they are acknowledged."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from torch_tasks.caller import CallerKind
from torch_tasks.errors import AuditNotWritten
from torch_tasks.model.asker import Asker
from torch_tasks.model.audit_record import AuditOutcome, AuditRecord
from torch_tasks.security.rights import Right
from torch_tasks.settings import settings
from torch_tasks.system.chain import ChainedLog, ChainEntry

log = logging.getLogger(__name__)

WEIGHTY = frozenset({Right.GRANT, Right.ANSWER, Right.REVIVE, Right.SPAWN, Right.RETIRE, Right.BUDGET, Right.TYPE})
"""Acts by these rights are noted, on the disk for good, before they are done: without a note they are refused.

A hold is not among them: a fleet can be stopped although its disk is full. It is noted for good afterwards.
"""
_DURABLE = WEIGHTY | {Right.HOLD}
_NAMED = (
    "id", "task_id", "agent_id", "agent", "message_id", "checkin_id", "to", "target", "party", "sender", "role",
    "node", "pool", "account", "resource", "project", "group_id", "name",
)  # fmt: skip
"""The fields of a request that say what it is about."""
_LONGEST = 300


def audit_log() -> ChainedLog:
    """The log of this process's state folder."""
    return _log(settings().state.audit, settings().audit_file_bytes)


@lru_cache(maxsize=8)
def _log(folder: Path, file_bytes: int) -> ChainedLog:
    return ChainedLog(folder, file_bytes)


def is_noted(*, writes: bool) -> bool:
    """Whether an operation is noted if the policy lets the caller; a refusal always is."""
    extent = settings().audit
    return extent == "all" or (extent == "acts" and writes)


def note_operation(what: str, right: Right, asked: BaseModel, rule: str, outcome: AuditOutcome, why: str = "") -> None:
    """Note an operation of the present caller; :class:`AuditNotWritten` if that cannot be before a weighty one."""
    text = asked.model_dump_json()
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    record = _record(what, Asker.now(), on=about(asked), rule=rule, outcome=outcome, why=why, digest=digest)
    _write(record, durable=right in _DURABLE, must=outcome is AuditOutcome.BEGUN)


def note_event(
    what: str,
    on: str = "",
    *,
    who: Asker | None = None,
    behalf: Asker | None = None,
    why: str = "",
    outcome: AuditOutcome = AuditOutcome.DONE,
    durable: bool = False,
    must: bool = False,
) -> None:
    """Note what happened outside of operations: by this machine's node, if nobody else is named.

    :class:`AuditNotWritten` if that cannot be, and it ``must``; else the log of the process says so.
    """
    if settings().audit == "off":
        return
    who = who or Asker(kind=CallerKind.NODE, name=settings().node)
    behalf_key = behalf.key if behalf and behalf.key != who.key else None
    _write(_record(what, who, on=on, why=why, outcome=outcome, behalf=behalf_key), durable=durable, must=must)


def note_key_change(what: str, on: str, *, by_itself: bool, must: bool) -> None:
    """Note, on the disk for good, what became of a key: this machine did it ``by_itself``, or the present caller."""
    note_event(what, on, who=None if by_itself else Asker.now(), durable=True, must=must)


def note_refusal(what: str, who: Asker, why: str) -> None:
    """Note that the policy does not let a caller."""
    if settings().audit != "off":
        _write(_record(what, who, why=why, outcome=AuditOutcome.REFUSED), durable=False, must=False)


def records(entries: Iterator[ChainEntry] | None = None) -> Iterator[tuple[ChainEntry, AuditRecord]]:
    """What was noted on this machine, oldest first."""
    for entry in audit_log().entries() if entries is None else entries:
        try:
            yield entry, AuditRecord.model_validate(entry.value)
        except ValidationError:  # an entry of the log itself
            continue


def about(asked: BaseModel) -> str:
    """What a request names, in words: ``task_id 0f3a to dev-2``."""
    fields = vars(asked)
    named = ((name, fields.get(name)) for name in _NAMED)
    words = " ".join(f"{name} {value}" for name, value in named if isinstance(value, str) and value)
    return words[:_LONGEST]


def _record(what: str, who: Asker, **fields: Any) -> AuditRecord:
    fields["why"] = fields.get("why", "")[: 2 * _LONGEST]
    return AuditRecord(what=what, who=who.key, role=who.role, node=settings().node, pid=os.getpid(), **fields)


def _write(record: AuditRecord, *, durable: bool, must: bool) -> None:
    value = record.model_dump(mode="json", exclude_defaults=True)
    try:
        audit_log().append(value, durable=durable)
    except AuditNotWritten as error:
        if must:
            raise
        log.error("%s by %s (%s) is not in the audit: %s", record.what, record.who, record.outcome, error)

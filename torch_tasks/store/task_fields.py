"""The fields of a task's record: how they are written, and what they say, also if Torch did not write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from torch_tasks.model.reader import read_json, read_object, unreadable_if_wrong
from torch_tasks.model.task import HistoryEntry, TaskRecord, TaskState

_STATES = frozenset(TaskState)
END_SIGNATURE, SPEC_SIGNATURE = "end_signature", "spec_signature"
"""The fields in which the node that wrote a result, or a spec, signed it."""


def state_of(text: object) -> TaskState | None:
    return TaskState(str(text)) if text in _STATES else None


def history_entry(line: str) -> HistoryEntry:
    entry = read_object(line)
    return HistoryEntry.model_validate(entry | {"at": datetime.fromtimestamp(entry["at"] / 1000, UTC)})


def record_of(fields: Mapping[str, str]) -> TaskRecord:
    """The record in the fields of its hash, or :class:`Unreadable`."""
    with unreadable_if_wrong():
        return _record(fields)


def _record(fields: Mapping[str, str]) -> TaskRecord:
    values: dict[str, Any] = dict(fields)
    values["spec"] = read_object(fields["spec"])
    for name in ("asked", "followers", END_SIGNATURE, SPEC_SIGNATURE):
        values.pop(name, None)
    for name in ("created_at", "assigned_at", "started_at", "finished_at"):
        if name in fields:
            values[name] = datetime.fromtimestamp(int(float(fields[name])) / 1000, UTC)
    for name in ("result", "handoff", "handover", "question", "enqueued_by"):
        if name in fields:
            values[name] = read_json(fields[name] or "null")
    if values["state"] != TaskState.WAITING:
        values.pop("question", None)
    return TaskRecord.model_validate(values)


def fingerprint(wire: Mapping[str, Any]) -> str:
    """The same for the same spec alone."""
    return hashlib.blake2b(json.dumps(wire, sort_keys=True).encode(), digest_size=16).hexdigest()


def milliseconds_of(moment: str | None) -> int | None:
    return None if moment is None else int(datetime.fromisoformat(moment).timestamp() * 1000)


def followers(account: Mapping[str, str]) -> list[str]:
    """The tasks that were accepted to begin after this one."""
    return account.get("followers", "").split()


def is_same(account: Mapping[str, str], wire: Mapping[str, Any]) -> bool:
    """Whether this is the record of the same task, as it was asked for or as it became when it was handed over."""
    return account.get("asked") == fingerprint(wire) or json.loads(account["spec"]) == wire

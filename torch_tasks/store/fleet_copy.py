"""Copies what lies on the broker while the fleet works, so that each task in the copy is open or has ended, never half.

The copy has the tasks and messages that were known when it began. Their places are read before their records: a task
whose record says that it has ended stays so, whatever lies in a queue, and what is open has its message; where a
message was on its way between two queues, both are looked at again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.store.key_copies import KeyCopy, names, read_keys
from torch_tasks.store.key_families import Fate
from torch_tasks.store.task_fields import state_of
from torch_tasks.transport.envelope import fields_of, message_id

_RUN = "torch.run"
_LOOKS = 5
_BETWEEN_LOOKS_SECONDS = 0.1
_HASHES = (keys.DELIVERIES, keys.SET_ASIDE, keys.DEAD_LETTERS)
"""The hashes of messages; a task's own is in one of them, or in a queue."""
_INBOX = keys.inbox("", "normal")


@dataclass
class FleetCopy:
    """One copy of what lies on a broker; the client must not decode responses."""

    client: redis.Redis
    open: set[str] = field(default_factory=set)
    """The tasks in it that have not ended."""
    ended: int = 0
    without_message: list[str] = field(default_factory=list)
    """Open tasks that no message was found of: whoever published them died over it, and its ledger sends them."""
    keys: int = 0

    def copies(self) -> Iterator[KeyCopy]:
        """All of it; the fields of this object are complete with the last one."""
        for one in self._all():
            self.keys += 1
            yield one

    def _all(self) -> Iterator[KeyCopy]:
        indexes = {one.name: one for one in read_keys(self.client, [keys.TASK_STATUS, keys.MESSAGES])}
        self._tasks, self._messages = (_members(indexes.get(name)) for name in (keys.TASK_STATUS, keys.MESSAGES))
        self._found: set[str] = set()
        yield from indexes.values()
        wanted = names(self.client, lambda fate: fate is not Fate.EPHEMERAL)
        places = [name for name in wanted if _is_place(name)]
        for place in read_keys(self.client, [*places, keys.LEASES]):
            yield self._without_later(place)
        yield from self._records(sorted(self._tasks))
        done = {*indexes, *places, keys.LEASES}
        yield from read_keys(self.client, (name for name in wanted if name not in done and self._is_of_this(name)))

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _records(self, tasks: Collection[str]) -> Iterator[KeyCopy]:
        """The tasks' records; those that are open and have no message yet come last, with what was found of them."""
        unfound: dict[str, KeyCopy] = {}
        for record in read_keys(self.client, map(keys.task_record, tasks)):
            task_id = record.name.removeprefix(keys.task_record(""))
            if _has_ended(record):
                self.ended += 1
            elif task_id in self._found:
                self.open.add(task_id)
            else:
                unfound[task_id] = record
                continue
            yield record
        yield from self._looked_for(unfound)

    def _looked_for(self, unfound: dict[str, KeyCopy]) -> Iterator[KeyCopy]:
        for look in range(_LOOKS):
            if not unfound:
                return
            if look:
                time.sleep(_BETWEEN_LOOKS_SECONDS)
            for task_id, copy in self._messages_of(unfound).items():
                yield copy
                yield unfound.pop(task_id)
                self.open.add(task_id)
            for record in read_keys(self.client, map(keys.task_record, list(unfound))):
                if _has_ended(record):
                    yield record
                    del unfound[record.name.removeprefix(keys.task_record(""))]
                    self.ended += 1
        self.open |= unfound.keys()
        self.without_message = sorted(unfound)
        yield from unfound.values()

    def _messages_of(self, tasks: Collection[str]) -> dict[str, KeyCopy]:
        """Where a message of each of these tasks is now, as far as one is found."""
        found: dict[str, KeyCopy] = {}
        for place in read_keys(self.client, filter(_is_place, names(self.client, lambda fate: fate is Fate.KEPT))):
            for part in place.value if place.kind in ("list", "hash") else ():
                task_id = _task_in(place, part)
                if task_id in tasks and task_id not in found:
                    found[str(task_id)] = KeyCopy(place.name, place.kind, [part], adds=True)
        return found

    # ── what came after the copy had begun ───────────────────────────────────────────────────────────────────────

    def _without_later(self, place: KeyCopy) -> KeyCopy:
        """A queue, or other place of messages, without what was not known when this began."""
        if place.kind == "stream":
            entries = [one for one in place.value["entries"] if _message_in(one[1]) in self._messages]
            return place._replace(value={**place.value, "entries": entries})
        if place.kind not in ("list", "hash") or place.name == keys.DEAD_LETTERS:
            return place
        kept = []
        for part in place.value:
            task_id = _task_in(place, part)
            if task_id is None or task_id in self._tasks:
                kept.append(part)
                self._found |= {task_id} if task_id else set()
        return place._replace(value=kept)

    def _is_of_this(self, name: str) -> bool:
        """Whether a key is not the record or history of what came later; records of tasks are read by their ids."""
        if name.startswith(keys.task_record("")):
            return False
        for beginning, known in ((keys.task_history(""), self._tasks), (keys.message(""), self._messages)):
            if name.startswith(beginning):
                return name.removeprefix(beginning) in known
        return True


def _is_place(name: str) -> bool:
    """Whether messages lie there, of tasks or to agents."""
    return name in _HASHES or name.startswith(("torch.", "celery", _INBOX))


def _task_in(place: KeyCopy, part: Any) -> str | None:
    """The task whose message this is; None if it is that of something else."""
    text = part[1] if place.kind == "hash" else part
    try:
        headers = fields_of(text).get("headers")
    except (ValueError, AttributeError):
        return None
    return message_id(text) if isinstance(headers, Mapping) and headers.get("task") == _RUN else None


def _message_in(words: list[str]) -> str:
    return dict(zip(words[::2], words[1::2], strict=True)).get("id", "")


def _members(index: KeyCopy | None) -> set[str]:
    return {member for member, _ in index.value} if index else set()


def _has_ended(record: KeyCopy) -> bool:
    state = state_of(dict(record.value).get("state")) if record.kind == "hash" else None
    return state is not None and state.ended

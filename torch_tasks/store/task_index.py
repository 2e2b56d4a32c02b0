"""What a process knows of every task, kept by reading what has changed: a look costs what is new, not what exists."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.errors import Unreadable
from torch_tasks.model.board import BoardEntry, BoardPlace
from torch_tasks.model.fields import title_of
from torch_tasks.model.reader import read_object
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.store.notices import AT_ONCE, Notices
from torch_tasks.store.task_fields import state_of

_PAGE = 500
_FIELDS = ("state", "agent", "trace", "spec")
_RECORD = keys.task_record("")


class TaskIndex:
    """All tasks, the latest first, as the broker has them at this moment.

    What a record says of its state is not verified here: whoever shows a task reads its record.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._notices = Notices(client)
        self._reading = threading.Lock()
        self._known: dict[str, BoardEntry | None] = {}
        """None for those whose record is gone, or is none."""
        self._sorted: tuple[BoardEntry, ...] = ()
        self._number: tuple[int, int] | None = None
        """The last notice that was read; None before everything was read once."""
        self._seen_us = 0
        """The latest acceptance that was seen."""

    def entries(self) -> Sequence[BoardEntry]:
        with self._reading:
            last = self._notices.last()
            if self._number is None or not self._notices.keeps(self._number) or last < self._number:
                changed = self._begin()
            else:
                changed = self._go_on(self._number, last)
            self._number = last
            if changed:
                self._sorted = tuple(sorted(filter(None, self._known.values()), reverse=True))
            return self._sorted

    def _begin(self) -> bool:
        self._known, self._seen_us = {}, 0
        self._read(self._accepted(0))
        return True

    def _go_on(self, number: tuple[int, int], last: tuple[int, int]) -> bool:
        """Read the tasks that are new, and those that something has happened to; forget those that are gone."""
        changed = {one: us for one, us in self._accepted(self._seen_us).items() if not self._is_known(one, us)}
        changed |= {one: entry.place.accepted_us for one in self._told(number, last) if (entry := self._known.get(one))}
        self._read(changed)
        if int(self._client.zcard(keys.TASK_STATUS)) == len(self._known):
            return bool(changed)
        there = self._accepted(0)
        self._known = {one: entry for one, entry in self._known.items() if one in there}
        self._read({one: us for one, us in there.items() if one not in self._known})
        return True

    def _is_known(self, task_id: str, accepted_us: int) -> bool:
        entry = self._known.get(task_id)
        return task_id in self._known and (entry is None or entry.place.accepted_us == accepted_us)

    def _told(self, number: tuple[int, int], last: tuple[int, int]) -> Iterator[str]:
        while number < last and (notices := self._notices.between(number, last)):
            yield from (one.record.removeprefix(_RECORD) for one in notices if one.record.startswith(_RECORD))
            number = notices[-1].number
            if len(notices) < AT_ONCE:
                return

    def _accepted(self, since_us: int) -> dict[str, int]:
        found: Any = self._client.zrangebyscore(keys.TASK_STATUS, since_us, "+inf", withscores=True)
        return {str(task_id): int(us) for task_id, us in found}

    def _read(self, places: dict[str, int]) -> None:
        self._seen_us = max([self._seen_us, *places.values()])
        left = iter(places.items())
        while page := list(islice(left, _PAGE)):
            read = self._fields(task_id for task_id, _ in page)
            for (task_id, us), fields in zip(page, read, strict=True):
                self._known[task_id] = _entry(BoardPlace(us, task_id), fields)

    def _fields(self, ids: Iterable[str]) -> list[Collection[str | None]]:
        with self._client.pipeline(transaction=False) as pipe:
            for task_id in ids:
                pipe.hmget(keys.task_record(task_id), _FIELDS)
            return list(pipe.execute())


def _entry(place: BoardPlace, fields: Collection[str | None]) -> BoardEntry | None:
    """None if there is no such record, or none that Torch wrote."""
    state, agent, trace, text = fields
    known = state_of(state)
    if known is None or text is None:
        return None
    try:
        spec = read_object(text)
    except Unreadable:
        return None
    given, role, wanted = (spec.get(name) for name in ("title", "role", "agent"))
    prompt = str(spec.get("prompt", "")).strip()
    title = str(given or (title_of(prompt) if prompt else ""))[:200]
    return BoardEntry(
        place,
        known,
        title,
        str(role) if role else None,
        agent or (str(wanted) if wanted else None),
        TraceParent.of(trace, place.id).trace_id,
        title.casefold(),
    )

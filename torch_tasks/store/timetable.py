"""The check-ins: every statement of beat. Celery's own entries are due in the same set, under ids of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.model.checkin import CheckinState, Fire, SlotOutcome, milliseconds
from torch_tasks.model.reader import number
from torch_tasks.settings import Settings
from torch_tasks.store.checkins import SCRIPTS, fields_of, line_of, pages, places_of

PERIODIC = "celery:"
"""How the id of one of Celery's own entries begins; no check-in has such an id."""
LINES_KEPT = 10
"""How many lines of its history the copy of an entry holds at least, the latest; it holds all of open slots, too."""

_AT_ONCE = 500
_FIELDS = ("checkin", "state", "slot", "due", "runs", "version")
_NOTHING_LEFT = (CheckinState.ENDED, "removed")


class Due(NamedTuple):
    """Something that is due, since a time in the broker's milliseconds."""

    member: str
    since: int

    @property
    def id(self) -> str:
        return self.member if self.periodic else self.member.partition("@")[0]

    @property
    def slot_ms(self) -> int | None:
        """The slot to be fired, if it is not the entry's next one."""
        _, at, slot = self.member.partition("@")
        return int(slot) if at and not self.periodic else None

    @property
    def periodic(self) -> bool:
        return self.member.startswith(PERIODIC)


class Tick(NamedTuple):
    now_ms: int
    leads: bool
    next_ms: int | None = None
    """When the next one is due, if none is now."""
    due: tuple[Due, ...] = ()


class Advance(NamedTuple):
    """What becomes of one entry after its due slots were fired."""

    due: Due
    version: str = ""
    state: CheckinState | None = None
    """None if the entry itself stays as it is."""
    slot: datetime | None = None
    next_ms: int | None = None
    runs: int = 0
    fires: tuple[Fire, ...] = ()


class EntryCopy(NamedTuple):
    """An entry: its fields, and by their slots the latest lines of its history and those of open slots."""

    id: str
    fields: dict[str, str]
    lines: dict[str, str]

    @property
    def revision(self) -> int:
        """A number that grows with every change; 0 if there is no such entry."""
        return number(self.fields.get("revision"))

    @property
    def state(self) -> str:
        return self.fields.get("state", "")


class Timetable:
    """The timetable of one broker."""

    ahead_ms = 0
    """How far ahead of the broker's clock entries count as due."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._lease_ms = int(settings.beat_lease_seconds * 1000)
        self._keep_seconds = int(settings.result_days * 86400)

    def lead(self, owner: str, held: str) -> tuple[str, float]:
        """Take or renew the lead; returns its token, or '' and for how many seconds another beat leads at least."""
        places = {"lock": keys.BEAT_LEADER, "epoch": keys.BEAT_EPOCH}
        token, ms = SCRIPTS["lead"](self._client, **places, owner=owner, held=held, lease_ms=self._lease_ms)
        return str(token), max(int(ms), 0) / 1000

    def resign(self, held: str) -> None:
        """Give up the lead and wake the other beats."""
        SCRIPTS["resign"](self._client, lock=keys.BEAT_LEADER, changes=keys.CHECKIN_CHANGES, held=held)

    def tick(self, held: str, most: int) -> Tick:
        """What is due now, the longest due first; this renews the lead."""
        places = {"lock": keys.BEAT_LEADER, "due": keys.CHECKINS_DUE}
        answer = SCRIPTS["tick"](
            self._client, **places, held=held, lease_ms=self._lease_ms, most=most, ahead_ms=self.ahead_ms
        )
        if len(answer) == 1:
            return Tick(int(answer[0]), leads=False)
        now, upcoming, found = answer
        due = tuple(Due(str(member), int(float(score))) for member, score in zip(found[::2], found[1::2], strict=True))
        return Tick(int(now), True, int(float(upcoming)) if upcoming else None, due)

    def entries(self, ids: Iterable[str]) -> list[dict[str, str | None]]:
        """The fields of these entries, as :func:`fields_of` reads them."""
        return fields_of(self._client, ids, _FIELDS)

    def advance(self, held: str, advances: Sequence[Advance]) -> bool:
        """Write what was fired and what comes next, in one step; false, with nothing written, if the lead is lost.

        An entry that was changed meanwhile stays as it is.
        """
        places = [places_of(one.due.id) for one in advances]
        done = SCRIPTS["advance"](
            self._client,
            lock=keys.BEAT_LEADER,
            due=keys.CHECKINS_DUE,
            changes=keys.CHECKIN_CHANGES,
            entries=[one["entry"] for one in places],
            slots=[one["slots"] for one in places],
            lines=[one["lines"] for one in places],
            held=held,
            keep_seconds=self._keep_seconds,
            advances=json.dumps([_advance(one) for one in advances]),
        )
        return int(done) >= 0

    def set_aside(self, due: Due, why: str) -> None:
        """Keep an entry that cannot be read from coming up; without a ``why``, one that does not exist."""
        places = {"entry": keys.checkin(due.id), "due": keys.CHECKINS_DUE, "changes": keys.CHECKIN_CHANGES}
        SCRIPTS["set_aside"](self._client, **places, id=due.id, member=due.member, why=why)

    def installed(self) -> set[str]:
        return {str(one) for one in self._client.zrange(keys.PERIODIC, 0, -1)}

    def install(self, entry_id: str, schedule: str, slot: datetime) -> bool:
        """Have one of Celery's own entries come up, unless it already does by this schedule."""
        places = {"entry": keys.checkin(entry_id), "due": keys.CHECKINS_DUE, "changes": keys.CHECKIN_CHANGES}
        when = {"schedule": schedule, "slot": slot.isoformat(), "due_ms": milliseconds(slot)}
        return bool(SCRIPTS["install"](self._client, **places, names=keys.PERIODIC, id=entry_id, **when))

    def uninstall(self, entry_id: str) -> None:
        """Keep one of Celery's own entries from coming up."""
        places = places_of(entry_id) | {"all": keys.PERIODIC}
        SCRIPTS["remove"](self._client, **places, id=entry_id, keep_seconds=self._keep_seconds)

    def changes(self, after: str, wait_ms: int) -> tuple[str, list[str]] | None:
        """The place up to which the stream of changes was read, and the ids of the changed entries; waits for a change.

        None if the stream does not hold all changes since ``after``.
        """
        oldest = self._client.xrange(keys.CHECKIN_CHANGES, count=1)
        first = _place(str(oldest[0][0])) if oldest else (0, 0)
        if not first <= _place(after) <= _place(self.newest()):
            return None
        streams: dict[str | bytes | memoryview, str | bytes | memoryview | int] = {keys.CHECKIN_CHANGES: after}
        answer: Any = self._client.xread(streams, count=_AT_ONCE, block=wait_ms)
        if not answer:
            return after, []
        ((_, entries),) = answer
        ids = [one for _, fields in entries for one in str(fields.get("ids", "")).split("\n") if one]
        return str(entries[-1][0]), list(dict.fromkeys(ids))

    def newest(self) -> str:
        """The place of the latest change in the stream."""
        found = self._client.xrevrange(keys.CHECKIN_CHANGES, count=1)
        return str(found[0][0]) if found else "0-0"

    def ids(self) -> Iterator[list[str]]:
        """The ids of all entries, a page at a time."""
        for index in (keys.CHECKINS, keys.PERIODIC):
            yield from pages(self._client, index)

    def accounts(self, ids: Sequence[str]) -> list[EntryCopy]:
        with self._client.pipeline(transaction=False) as pipe:
            for one in ids:
                slots, lines = keys.checkin_history(one)
                SCRIPTS["copy"](pipe, entry=keys.checkin(one), slots=slots, lines=lines, count=LINES_KEPT)
            found = pipe.execute()
        return [EntryCopy(one, _pairs(fields), _pairs(lines)) for one, (fields, lines) in zip(ids, found, strict=True)]

    def restore(self, accounts: Iterable[EntryCopy]) -> int:
        """Put entries back where the broker knows no later revision; returns how many were put back.

        Fires that are not known to have arrived are fired again, under the same ids.
        """
        known = list(accounts)
        with self._client.pipeline(transaction=False) as pipe:
            for account in known:
                pipe.hget(keys.checkin(account.id), "revision")
            revisions = pipe.execute()
        forgotten = [one for one, there in zip(known, revisions, strict=True) if number(there) < one.revision]
        with self._client.pipeline(transaction=False) as pipe:
            for account in forgotten:
                self._put_back(account, pipe)
            return sum(map(int, pipe.execute()))

    def _put_back(self, account: EntryCopy, pipe: redis.client.Pipeline) -> None:
        fields, removed = account.fields, account.state == "removed"
        unsent = [slot for slot, line in account.lines.items() if number(line[:1]) < SlotOutcome.SENT.rank]
        SCRIPTS["restore"](
            pipe,
            **places_of(account.id),
            index=keys.PERIODIC if account.id.startswith(PERIODIC) else keys.CHECKINS,
            id=account.id,
            revision=account.revision,
            added=None if removed else fields.get("added", "0"),
            due_ms=fields.get("due") if account.state == CheckinState.ACTIVE else None,
            keep_seconds=self._keep_seconds if account.state in _NOTHING_LEFT else None,
            fire_again=[] if removed else unsent,
            history=account.lines,
            fields=fields,
        )

    def is_empty(self) -> bool:
        return not self._client.exists(keys.CHECKINS)


def _advance(one: Advance) -> dict[str, Any]:
    return {
        "member": one.due.member,
        "id": one.due.id,
        "since": one.due.since,
        "version": one.version,
        "state": one.state or "",
        "slot": one.slot.isoformat() if one.slot else "",
        "due": str(one.next_ms or ""),
        "runs": str(one.runs),
        "fires": [(str(milliseconds(fire.slot)), line_of(fire)) for fire in one.fires],
    }


def _place(text: str) -> tuple[int, int]:
    first, _, second = text.partition("-")
    return int(first), int(second or 0)


def _pairs(flat: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    return dict(flat) if isinstance(flat, Mapping) else dict(zip(flat[::2], flat[1::2], strict=True))

"""The check-ins as beat sees them: who leads, what is due, what was done, and what must not be forgotten.

Celery's own entries stand in the same set of what is due, under an id that no check-in can have.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.model.checkin import CheckinState, Fire, SlotOutcome, milliseconds
from torch_tasks.settings import Settings
from torch_tasks.store.checkins import SCRIPTS, fields_of, line_of, places_of

PERIODIC = "celery:"
"""How the id of one of Celery's own entries begins."""
LINES_KEPT = 10
"""So much of the history of each entry an account holds, the latest."""

_AT_ONCE = 500
_FIELDS = ("checkin", "state", "slot", "due", "runs", "version")
_NOTHING_LEFT = (CheckinState.ENDED, "removed")


class Due(NamedTuple):
    """Something that is due since a moment, in the broker's milliseconds."""

    member: str
    since: int

    @property
    def id(self) -> str:
        """The entry it belongs to."""
        return self.member if self.periodic else self.member.partition("@")[0]

    @property
    def slot_ms(self) -> int | None:
        """The very slot that is to be fired, if it is not the entry's next one."""
        _, at, slot = self.member.partition("@")
        return int(slot) if at and not self.periodic else None

    @property
    def periodic(self) -> bool:
        """It is one of Celery's own entries."""
        return self.member.startswith(PERIODIC)


class Tick(NamedTuple):
    """What a look at the timetable shows."""

    now_ms: int
    leads: bool
    next_ms: int | None = None
    """When the next is due, if nothing is and there is one."""
    due: tuple[Due, ...] = ()


class Advance(NamedTuple):
    """How one entry stands after what was due of it has been fired."""

    due: Due
    version: str = ""
    state: CheckinState | None = None
    """None: the entry itself stays as it is."""
    slot: datetime | None = None
    next_ms: int | None = None
    runs: int = 0
    fires: tuple[Fire, ...] = ()


class EntryCopy(NamedTuple):
    """All that there is to know of an entry: its fields, and the latest lines of its history by their slots."""

    id: str
    fields: dict[str, str]
    lines: dict[str, str]

    @property
    def revision(self) -> int:
        """Grows with every change; 0 if there is no such entry."""
        return int(self.fields.get("revision", 0))

    @property
    def state(self) -> str:
        """Where it stands."""
        return self.fields.get("state", "")


class Timetable:
    """What is due on one broker."""

    ahead_ms = 0
    """How far what is due lies ahead of the broker's clock."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._lease_ms = int(settings.beat_lease_seconds * 1000)
        self._keep_seconds = int(settings.result_days * 86400)

    # ── who leads ────────────────────────────────────────────────────────────────────────────────────────────────

    def lead(self, owner: str, held: str) -> tuple[str, float]:
        """What proves that this beat leads; or nothing, and for how many seconds another beat does at least."""
        places = {"lock": keys.BEAT_LEADER, "epoch": keys.BEAT_EPOCH}
        token, ms = SCRIPTS["lead"](self._client, **places, owner=owner, held=held, lease_ms=self._lease_ms)
        return str(token), max(int(ms), 0) / 1000

    def resign(self, held: str) -> None:
        """Let another one lead at once."""
        SCRIPTS["resign"](self._client, lock=keys.BEAT_LEADER, changes=keys.CHECKIN_CHANGES, held=held)

    # ── what is due ──────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, held: str, most: int) -> Tick:
        """What is due now, the longest due first; the lead is kept by it."""
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
        """The fields of these entries, in their order; all None where there is none, or something else."""
        return fields_of(self._client, ids, _FIELDS)

    def advance(self, held: str, advances: Sequence[Advance]) -> bool:
        """Write what was fired and what comes next, in one step; false if this beat leads no more: nothing is written.

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
        """Have an entry that cannot be read come up no more; without a ``why``, one that is not there."""
        places = {"entry": keys.checkin(due.id), "due": keys.CHECKINS_DUE, "changes": keys.CHECKIN_CHANGES}
        SCRIPTS["set_aside"](self._client, **places, id=due.id, member=due.member, why=why)

    # ── Celery's own entries ─────────────────────────────────────────────────────────────────────────────────────

    def installed(self) -> set[str]:
        """The ids of Celery's own entries."""
        return {str(one) for one in self._client.zrange(keys.PERIODIC, 0, -1)}

    def install(self, entry_id: str, schedule: str, slot: datetime) -> bool:
        """Have one of Celery's own entries come up, unless it does so already by the same schedule."""
        installed = SCRIPTS["install"](
            self._client,
            entry=keys.checkin(entry_id),
            names=keys.PERIODIC,
            due=keys.CHECKINS_DUE,
            changes=keys.CHECKIN_CHANGES,
            id=entry_id,
            schedule=schedule,
            slot=slot.isoformat(),
            due_ms=milliseconds(slot),
        )
        return bool(installed)

    def uninstall(self, entry_id: str) -> None:
        """Have it come up no more."""
        places = places_of(entry_id) | {"all": keys.PERIODIC}
        SCRIPTS["remove"](self._client, **places, id=entry_id, keep_seconds=self._keep_seconds)

    # ── what must not be forgotten ───────────────────────────────────────────────────────────────────────────────

    def changes(self, after: str, wait_ms: int) -> tuple[str, list[str]] | None:
        """Of which entries something changed after this place in the stream, and the place after that.

        Waits for a change if there is none. None if so much has changed that not all of it is known any more.
        """
        if not self._is_kept(after):
            return None
        streams: dict[str | bytes | memoryview, str | bytes | memoryview | int] = {keys.CHECKIN_CHANGES: after}
        answer: Any = self._client.xread(streams, count=_AT_ONCE, block=wait_ms)
        if not answer:
            return after, []
        ((_, entries),) = answer
        ids = [one for _, fields in entries for one in str(fields["ids"]).split("\n") if one]
        return str(entries[-1][0]), list(dict.fromkeys(ids))

    def _is_kept(self, after: str) -> bool:
        """All that changed after this place is still in the stream."""
        oldest = self._client.xrange(keys.CHECKIN_CHANGES, count=1)
        first = _place(str(oldest[0][0])) if oldest else (0, 0)
        return first <= _place(after) <= _place(self.newest())

    def newest(self) -> str:
        """The place in the stream of changes after which nothing has changed yet."""
        found = self._client.xrevrange(keys.CHECKIN_CHANGES, count=1)
        return str(found[0][0]) if found else "0-0"

    def ids(self) -> Iterator[list[str]]:
        """All there are, some at a time."""
        for index in (keys.CHECKINS, keys.PERIODIC):
            for start in itertools.count(0, _AT_ONCE):
                found = [str(one) for one in self._client.zrange(index, start, start + _AT_ONCE - 1)]
                yield found
                if len(found) < _AT_ONCE:
                    break

    def accounts(self, ids: Sequence[str]) -> list[EntryCopy]:
        """The schedules and states of these entries."""
        with self._client.pipeline(transaction=False) as pipe:
            for one in ids:
                places = places_of(one)
                SCRIPTS["copy"](
                    pipe, entry=places["entry"], slots=places["slots"], lines=places["lines"], count=LINES_KEPT
                )
            found = pipe.execute()
        return [EntryCopy(one, _pairs(fields), _pairs(lines)) for one, (fields, lines) in zip(ids, found, strict=True)]

    def restore(self, accounts: Iterable[EntryCopy]) -> int:
        """Put back what the caller remembers, where the broker knows nothing later; returns how many were put back.

        What was given to the fleet and is not known to have arrived is fired again, under the same ids.
        """
        known = list(accounts)
        with self._client.pipeline(transaction=False) as pipe:
            for account in known:
                pipe.hget(keys.checkin(account.id), "revision")
            revisions = pipe.execute()
        forgotten = [one for one, there in zip(known, revisions, strict=True) if int(there or 0) < one.revision]
        with self._client.pipeline(transaction=False) as pipe:
            for account in forgotten:
                self._put_back(account, pipe)
            return sum(map(int, pipe.execute()))

    def _put_back(self, account: EntryCopy, pipe: redis.client.Pipeline) -> None:
        fields, removed = account.fields, account.state == "removed"
        active = account.state == CheckinState.ACTIVE
        again = (
            [] if removed else [slot for slot, line in account.lines.items() if int(line[0]) < SlotOutcome.SENT.rank]
        )
        index = keys.PERIODIC if account.id.startswith(PERIODIC) else keys.CHECKINS
        SCRIPTS["restore"](
            pipe,
            **places_of(account.id),
            index=index,
            id=account.id,
            revision=account.revision,
            added=None if removed else fields.get("added", "0"),
            due_ms=fields.get("due", "") if active else None,
            keep_seconds=self._keep_seconds if account.state in _NOTHING_LEFT else None,
            fire_again=again,
            history=account.lines,
            fields=fields,
        )

    def is_empty(self) -> bool:
        """The broker knows of no check-in at all."""
        return not self._client.exists(keys.CHECKINS)


def _advance(one: Advance) -> dict[str, Any]:
    """As the script takes it."""
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
    if isinstance(flat, Mapping):
        return dict(flat)
    return {str(flat[place]): str(flat[place + 1]) for place in range(0, len(flat), 2)}

"""The check-ins: every statement of people, agents and the delivery of a fire. Beat's are in ``timetable.py``."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.broker.clock import time_ms
from torch_tasks.broker.scripts import Scripts
from torch_tasks.errors import CheckinChanged, CheckinNotFound, InvalidCheckin, Unreadable
from torch_tasks.model.checkin import (
    Checkin,
    CheckinRecord,
    CheckinState,
    Fire,
    SlotOutcome,
    derived_id,
    fire_span,
    milliseconds,
    moment_of,
)
from torch_tasks.model.reader import number, read_model, unreadable_if_wrong
from torch_tasks.settings import Settings
from torch_tasks.store.ids import ids_beginning, near_ids
from torch_tasks.store.messages import Inboxes
from torch_tasks.store.signed_checkins import require_signed_checkin, signed_checkin
from torch_tasks.store.tasks import TaskRecords

log = logging.getLogger(__name__)

CHANGES_KEPT = 10_000
"""How many changes are kept for beats that were away; a beat that missed more reads all entries."""
HISTORY_KEPT = 100
"""How many lines of the history of one check-in are kept, the latest; more only if more of its slots are open."""
SCRIPTS = Scripts(__file__, CHANGES_KEPT=CHANGES_KEPT, HISTORY_KEPT=HISTORY_KEPT, SENT=SlotOutcome.SENT.rank)

_AT_ONCE = 500
_FIELDS = ("checkin", "state", "slot", "due", "runs", "version", "last", "why")


class CheckinRecords:
    """All check-ins on one broker, by its clock."""

    def __init__(self, client: redis.Redis, settings: Settings, inboxes: Inboxes, records: TaskRecords) -> None:
        self._client = client
        self._inboxes = inboxes
        self._records = records
        self._note_limit = settings.message_limit_bytes
        self._keep_seconds = int(settings.result_days * 86400)

    def add(self, checkin: Checkin) -> CheckinRecord:
        """Have a check-in come up from now on; one whose id is known stays as it is."""
        return self.add_all([checkin])[0]

    def add_all(self, checkins: Iterable[Checkin]) -> list[CheckinRecord]:
        """:meth:`add` many; none of them if one is refused."""
        now, wanted = self.now(), list(checkins)
        # The times of one that is known may be over.
        new = [one for one in wanted if one.slot_after(now) or self._read([one.id]) == [None]]
        slots = [_first(self._within_limit(checkin), now) for checkin in new]
        with self._client.pipeline(transaction=False) as pipe:
            for checkin, slot in zip(new, slots, strict=True):
                SCRIPTS["add"](
                    pipe,
                    entry=keys.checkin(checkin.id),
                    all=keys.CHECKINS,
                    due=keys.CHECKINS_DUE,
                    changes=keys.CHECKIN_CHANGES,
                    id=checkin.id,
                    checkin=signed_checkin(checkin).model_dump_json(),
                    slot=slot.isoformat(),
                    due_ms=due_ms(checkin, slot),
                )
            pipe.execute()
        return [record for record in self._read([checkin.id for checkin in wanted]) if record]

    def change(self, checkin: Checkin, version: int) -> CheckinRecord:
        """Replace the check-in of this id; :class:`CheckinChanged` if it has another version by now.

        Its next slot, even if overdue, stays if its times do.
        """
        self._within_limit(checkin)
        while True:
            record = self.get(checkin.id)
            if record.version != version:
                raise CheckinChanged(
                    f"check-in {checkin.id} was changed meanwhile (version {record.version}, not {version}): "
                    "nothing was changed. Look at it again"
                )
            require_signed_checkin(record.checkin)  # or what somebody else put there would be signed now
            if self._put(record, signed_checkin(checkin), self._state_and_slot(record, checkin)):
                return self.get(checkin.id)

    def pause(self, checkin_id: str) -> CheckinRecord:
        """Keep the check-in from coming up until it is resumed; slots that pass meanwhile are skipped."""
        return self._move(checkin_id, CheckinState.PAUSED)

    def resume(self, checkin_id: str) -> CheckinRecord:
        return self._move(checkin_id, CheckinState.ACTIVE)

    def remove(self, checkin_id: str) -> None:
        """Delete the check-in and its history. What was fired still arrives."""
        places = places_of(checkin_id) | {"all": keys.CHECKINS}
        if not SCRIPTS["remove"](self._client, **places, id=checkin_id, keep_seconds=self._keep_seconds):
            raise self._unknown(checkin_id)

    def run_now(self, checkin_id: str) -> Fire:
        """Fire the check-in at once, even if paused or ended. This does not count among its runs."""
        now = self.now()
        fire = Fire(checkin_id=checkin_id, slot=now, outcome=SlotOutcome.DUE, at=now, note="asked for by hand")
        if not self.note(fire, at_once=True):
            raise self._unknown(checkin_id)
        return fire

    def now(self) -> datetime:
        """The broker's time, as exact as slots are."""
        return moment_of(time_ms(self._client))

    def ids_beginning(self, beginning: str) -> list[str]:
        """The ids with this beginning; only the id itself if it is complete."""
        return ids_beginning(self._client, keys.CHECKINS, beginning)

    def _unknown(self, checkin_id: str) -> CheckinNotFound:
        near = near_ids(self._client, keys.CHECKINS, checkin_id) or "; 'torch-tasks checkin list' shows those there are"
        return CheckinNotFound(f"there is no check-in {checkin_id!r}: a wrong id, or it ended too long ago{near}")

    def to_come(self) -> int:
        """How many check-ins will come up, without the entries of Celery's own schedule."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zcard(keys.CHECKINS_DUE)
            pipe.zcard(keys.PERIODIC)
            due, periodic = pipe.execute()
        return max(0, int(due) - int(periodic))

    def get(self, checkin_id: str) -> CheckinRecord:
        (fields,) = self._fields([checkin_id])
        if fields["state"] is None or not fields["checkin"]:
            raise self._unknown(checkin_id)
        if fields["state"] == CheckinState.ASIDE:
            raise InvalidCheckin(f"check-in {checkin_id} cannot be read: {fields['why']}; remove it and add it anew")
        return record_of(fields)

    def records(
        self,
        *,
        agent: str | None = None,
        role: str | None = None,
        project: str | None = None,
        sender: str | None = None,
        state: CheckinState | None = None,
    ) -> list[CheckinRecord]:
        """The check-ins for this target, by this sender, in this state, in the order they were added in."""
        wanted = {"agent": agent, "role": role, "project": project}
        return [
            record
            for record in self.scan()
            if all(value in (None, getattr(record.checkin.target, name)) for name, value in wanted.items())
            and sender in (None, record.checkin.sender)
            and state in (None, record.state)
        ]

    def scan(self) -> Iterator[CheckinRecord]:
        """All check-ins that can be read, a page at a time, in the order they were added in."""
        for ids in pages(self._client, keys.CHECKINS):
            yield from (record for record in self._read(ids) if record)

    def aside(self) -> dict[str, str]:
        """The ids of the check-ins that cannot be read, and why."""
        ids = [str(one) for one in self._client.zrange(keys.CHECKINS, 0, -1)]
        found = zip(ids, self._fields(ids), strict=True)
        return {one: fields["why"] for one, fields in found if fields["state"] == CheckinState.ASIDE}

    def history(self, checkin_id: str, limit: int = 20) -> list[Fire]:
        """The outcomes of the latest slots, the latest first, with the present states of their messages and tasks."""
        self.get(checkin_id)
        slots, lines = keys.checkin_history(checkin_id)
        latest = [str(slot) for slot in self._client.zrevrange(slots, 0, limit - 1)]
        found = self._client.hmget(lines, latest) if latest else []
        fires = [fire for line in found if line and (fire := _fire_or_none(str(line)))]
        ids = [receipt.message for fire in fires for receipt in fire.receipts if receipt.message]
        states = dict(zip(ids, self._inboxes.states(ids), strict=True))
        tasks = [fire.task for fire in fires if fire.task]
        outlines = dict(zip(tasks, self._records.outlines(tasks), strict=True))

        def with_states(fire: Fire) -> Fire:
            receipts = [one.model_copy(update={"state": states.get(one.message or "")}) for one in fire.receipts]
            outline = outlines.get(fire.task or "")
            state = outline.state if outline else None
            return fire.model_copy(update={"receipts": tuple(receipts), "task_state": state})

        return list(map(with_states, fires))

    def note(self, fire: Fire, *, at_once: bool = False) -> bool:
        """Note the outcome of a slot, which is fired ``at_once`` if asked; false if the check-in is gone."""
        slot = milliseconds(fire.slot)
        begins = fire.outcome is SlotOutcome.SENT
        return bool(
            SCRIPTS["fire"](
                self._client,
                **places_of(fire.checkin_id),
                began=keys.checkin_trace(fire_span(derived_id(fire.checkin_id, fire.slot)).trace_id),
                id=fire.checkin_id,
                slot=slot,
                line=line_of(fire),
                at_once=at_once,
                begun=f"{fire.checkin_id} {slot}" if begins else "",
                keep_seconds=self._keep_seconds,
            )
        )

    def beginning_of(self, trace_id: str) -> tuple[Checkin, Fire] | None:
        """The check-in and its fire that a trace began with, if it began so and both are still known."""
        begun = str(self._client.get(keys.checkin_trace(trace_id)) or "")
        checkin_id, _, slot = begun.rpartition(" ")
        if not checkin_id:
            return None
        (record,) = self._read([checkin_id])
        fire = self.fire(checkin_id, moment_of(number(slot)))
        return (record.checkin, fire) if record and fire else None

    def fire(self, checkin_id: str, slot: datetime) -> Fire | None:
        line = self._client.hget(keys.checkin_history(checkin_id)[1], str(milliseconds(slot)))
        return fire_of(str(line)) if line else None

    def begin(self, checkin_id: str, slot: datetime) -> bool:
        """Note that a step that must not be done twice is about to be done; false if that was noted before."""
        mark = keys.checkin_begun(checkin_id, milliseconds(slot))
        return bool(self._client.set(mark, "", nx=True, ex=self._keep_seconds))

    def latest(self, checkin_id: str) -> dict[str, tuple[int, str]]:
        """What each receiver got last: the slot, in milliseconds, and the id of the message or task."""
        found = self._client.hgetall(keys.checkin_latest(checkin_id))
        parted = {str(receiver): str(text).partition(" ") for receiver, text in found.items()}
        return {receiver: (number(slot), what) for receiver, (slot, _, what) in parted.items()}

    def note_latest(self, checkin_id: str, whom: str, slot: datetime, what: str) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(keys.checkin_latest(checkin_id), whom, f"{milliseconds(slot)} {what}")
            pipe.expire(keys.checkin_latest(checkin_id), self._keep_seconds)
            pipe.execute()

    def prune(self) -> int:
        """Drop expired check-ins from the index; returns how many."""
        gone = 0
        for start in itertools.count(0, _AT_ONCE):
            ids = [str(one) for one in self._client.zrange(keys.CHECKINS, start - gone, start - gone + _AT_ONCE - 1)]
            lost = [one for one, fields in zip(ids, self._fields(ids), strict=True) if fields["state"] is None]
            gone += int(self._client.zrem(keys.CHECKINS, *lost)) if lost else 0
            if len(ids) < _AT_ONCE:
                break
        return gone

    def _move(self, checkin_id: str, to: CheckinState) -> CheckinRecord:
        while True:
            record = self.get(checkin_id)
            if record.state is to:
                return record
            if record.state is CheckinState.ENDED:
                raise InvalidCheckin(f"check-in {checkin_id} has ended: give it a new time, or add another one")
            slot = _first(record.checkin, self.now()) if to is CheckinState.ACTIVE else None
            if self._put(record, record.checkin, (to, slot)):
                return self.get(checkin_id)

    def _state_and_slot(self, record: CheckinRecord, wanted: Checkin) -> tuple[CheckinState, datetime | None]:
        if wanted.max_runs is not None and record.runs >= wanted.max_runs:
            raise InvalidCheckin(f"check-in {wanted.id} has fired {record.runs} times already; give it more runs")
        if record.state is CheckinState.PAUSED:
            _first(wanted, self.now())
            return CheckinState.PAUSED, None
        times = (record.checkin.schedule, record.checkin.ends)
        if record.slot and times == (wanted.schedule, wanted.ends):
            return CheckinState.ACTIVE, record.slot
        return CheckinState.ACTIVE, _first(wanted, self.now())

    def _put(self, record: CheckinRecord, checkin: Checkin, to: tuple[CheckinState, datetime | None]) -> bool:
        """Compare and set; false if the record must be read again."""
        state, slot = to
        done = SCRIPTS["change"](
            self._client,
            **places_of(checkin.id),
            id=checkin.id,
            version=record.version,
            known_slot=record.slot.isoformat() if record.slot else "",
            checkin=checkin.model_dump_json(),
            state=state,
            slot=slot.isoformat() if slot else "",
            due_ms=due_ms(checkin, slot) if slot else "",
        )
        if done == "missing":
            raise self._unknown(checkin.id)
        return bool(done == "done")

    def _within_limit(self, checkin: Checkin) -> Checkin:
        size = len(checkin.note.encode())
        if size > self._note_limit:
            raise InvalidCheckin(
                f"the note has {size:,} bytes, more than {self._note_limit:,} (TORCH_MESSAGE_LIMIT_BYTES); "
                "put the text into a file and name that"
            )
        return checkin

    def _fields(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        return fields_of(self._client, ids, _FIELDS)

    def _read(self, ids: list[str]) -> list[CheckinRecord | None]:
        """The records of these; None where one is gone or cannot be read."""
        found: list[CheckinRecord | None] = []
        for one, fields in zip(ids, self._fields(ids), strict=True):
            known = fields["checkin"] and fields["state"] != CheckinState.ASIDE
            try:
                found.append(record_of(fields) if known else None)
            except Unreadable as error:  # beat sets it aside once it is due
                log.warning("check-in %s cannot be read: %s", one, error)
                found.append(None)
        return found


def pages(client: redis.Redis, index: str) -> Iterator[list[str]]:
    """The ids in an index, a page at a time."""
    for start in itertools.count(0, _AT_ONCE):
        ids = [str(one) for one in client.zrange(index, start, start + _AT_ONCE - 1)]
        yield ids
        if len(ids) < _AT_ONCE:
            return


def fields_of(client: redis.Redis, ids: Iterable[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """These fields of these entries, in their order; all None where there is no such entry, or another type of key."""
    with client.pipeline(transaction=False) as pipe:
        for one in ids:
            pipe.hmget(keys.checkin(one), names)
        found = pipe.execute(raise_on_error=False)
    for answer in found:
        if isinstance(answer, redis.RedisError) and not isinstance(answer, redis.ResponseError):
            raise answer
    rows = [[None] * len(names) if isinstance(one, redis.ResponseError) else one for one in found]
    return [dict(zip(names, row, strict=True)) for row in rows]


def record_of(fields: Mapping[str, str | None]) -> CheckinRecord:
    """The record in the fields of an entry, or :class:`Unreadable`."""
    with unreadable_if_wrong():
        return _record(fields)


def _record(fields: Mapping[str, str | None]) -> CheckinRecord:
    known: dict[str, Any] = {name: fields[name] for name in ("state", "runs", "version") if fields.get(name)}
    due = fields.get("due")
    return CheckinRecord(
        checkin=read_model(Checkin, fields["checkin"] or ""),
        slot=datetime.fromisoformat(slot) if (slot := fields.get("slot")) else None,
        due=moment_of(float(due)) if due else None,
        last=fire_of(last) if (last := fields.get("last")) else None,
        **known,
    )


def line_of(fire: Fire) -> str:
    """A line of a history; the scripts compare its beginning."""
    return f"{fire.outcome.rank}{fire.model_dump_json(exclude_defaults=True)}"


def fire_of(line: str) -> Fire:
    return read_model(Fire, line[1:])


def _fire_or_none(line: str) -> Fire | None:
    try:
        return fire_of(line)
    except Unreadable as error:
        log.warning("a line of a check-in's history cannot be read: %s", error)
        return None


def places_of(entry_id: str) -> dict[str, str]:
    """The keys of an entry, as the scripts name them."""
    slots, lines = keys.checkin_history(entry_id)
    return {
        "entry": keys.checkin(entry_id),
        "slots": slots,
        "lines": lines,
        "due": keys.CHECKINS_DUE,
        "changes": keys.CHECKIN_CHANGES,
    }


def _first(checkin: Checkin, now: datetime) -> datetime:
    """The next slot; :class:`InvalidCheckin` if there is none."""
    slot = checkin.slot_after(now)
    if slot is None:
        raise InvalidCheckin(
            f"this check-in would never come up: {checkin.schedule}"
            + (f" until {checkin.ends:%Y-%m-%d %H:%M:%S %Z}" if checkin.ends else "")
            + f", and it is {now:%Y-%m-%d %H:%M:%S} UTC by the broker's clock"
        )
    return slot


def due_ms(checkin: Checkin, slot: datetime) -> int:
    """When the slot is due, rounded up."""
    return milliseconds(checkin.due(slot) - timedelta(microseconds=1)) + 1

"""Which slots of a check-in fire, which are skipped, and what comes next."""

from __future__ import annotations

from datetime import datetime
from itertools import takewhile
from typing import NamedTuple

from torch_tasks.model.checkin import Checkin, CheckinRecord, CheckinState, Fire, Misfire, SlotOutcome, derived_id
from torch_tasks.store.checkins import due_ms

SKIPPED_AT_ONCE = 5000
FIRED_AT_ONCE = 100
"""The most slots of one check-in that one step handles; the rest follow in the next steps."""


class SlotPlan(NamedTuple):
    """What to fire and skip now, and the check-in's state afterwards."""

    fires: tuple[Fire, ...]
    skipped: Fire | None
    state: CheckinState
    slot: datetime | None
    next_ms: int | None
    runs: int


def plan_slots(record: CheckinRecord, now: datetime, misfire_seconds: float) -> SlotPlan:
    """Plan the slots due by ``now``; those due for more than ``misfire_seconds`` count as missed."""
    checkin = record.checkin
    passed, upcoming = _passed(record, now)
    missed = list(takewhile(lambda slot: (now - checkin.due(slot)).total_seconds() > misfire_seconds, passed))
    chosen = passed[len(missed) :]
    if checkin.misfire is Misfire.ALL:
        missed, chosen = [], passed
    elif checkin.misfire is Misfire.ONCE and not chosen and not (upcoming and checkin.due(upcoming) <= now):
        missed, chosen = missed[:-1], missed[-1:]
    if checkin.max_runs is not None:
        chosen = chosen[: max(checkin.max_runs - record.runs, 0)]
        upcoming = upcoming if record.runs + len(chosen) < checkin.max_runs else None
    return SlotPlan(
        fires=tuple(fire_of(checkin, slot, now, checkin.due(slot)) for slot in chosen),
        skipped=_skipped(checkin, missed, now) if missed else None,
        state=CheckinState.ACTIVE if upcoming else CheckinState.ENDED,
        slot=upcoming,
        next_ms=due_ms(checkin, upcoming) if upcoming else None,
        runs=record.runs + len(chosen),
    )


def _passed(record: CheckinRecord, now: datetime) -> tuple[list[datetime], datetime | None]:
    """The slots that are due, up to the limit, and the next one if there is one."""
    checkin, slot = record.checkin, record.slot
    most = FIRED_AT_ONCE if checkin.misfire is Misfire.ALL else SKIPPED_AT_ONCE
    passed: list[datetime] = []
    while slot and len(passed) < most and checkin.due(slot) <= now:
        passed.append(slot)
        slot = checkin.slot_after(slot)
    return passed, slot


def fire_of(checkin: Checkin, slot: datetime, now: datetime, due: datetime) -> Fire:
    return Fire(
        checkin_id=checkin.id,
        slot=slot,
        outcome=SlotOutcome.FIRED,
        at=now,
        late=max((now - due).total_seconds(), 0.0),
        celery_id=derived_id(checkin.id, slot),
    )


def _skipped(checkin: Checkin, slots: list[datetime], now: datetime) -> Fire:
    """One line of history for all of these slots."""
    return Fire(
        checkin_id=checkin.id,
        slot=slots[-1],
        outcome=SlotOutcome.SKIPPED,
        at=now,
        late=(now - checkin.due(slots[-1])).total_seconds(),
        note=f"missed while no beat ran (misfire policy {checkin.misfire})",
        count=len(slots),
        since=slots[0] if len(slots) > 1 else None,
    )

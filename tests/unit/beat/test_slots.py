"""Which slots fire: by policy, by the number of runs, by the clock on the wall, and with jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from torch_tasks.beat.slots import FIRED_AT_ONCE, SKIPPED_AT_ONCE, SlotPlan, plan_slots
from torch_tasks.model.checkin import At, Checkin, CheckinRecord, CheckinState, Cron, Every, Target, derived_id

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def planned(now: datetime, *, runs: int = 0, **fields: Any) -> SlotPlan:
    """What is done now of a check-in of each minute whose next slot is the start."""
    every = Every(seconds=60, start=START)
    what = {"schedule": every, "note": "look", "target": Target(agent="dev-1"), "sender": "operator", **fields}
    checkin = Checkin.build(**what)
    return plan_slots(CheckinRecord(checkin=checkin, slot=checkin.slot_after(START - MINUTE), runs=runs), now, 60)


def minutes(plan_slots: SlotPlan) -> list[int]:
    """The minutes after the start whose slots fire."""
    return [int((fire.slot - START) / MINUTE) for fire in plan_slots.fires]


def test_a_slot_that_is_not_late_fires_and_the_next_one_follows() -> None:
    done = planned(START + timedelta(seconds=1))
    assert (minutes(done), done.skipped, done.slot, done.runs) == ([0], None, START + MINUTE, 1)
    (fire,) = done.fires
    assert (fire.late, fire.celery_id) == (1.0, derived_id(fire.checkin_id, START))


@pytest.mark.parametrize(
    ("misfire", "fire_of", "skipped"), [("once", [9, 10], 9), ("skip", [9, 10], 9), ("all", list(range(11)), 0)]
)
def test_what_was_missed_gives_way_to_what_is_in_time(misfire: str, fire_of: list[int], skipped: int) -> None:
    done = planned(START + 10 * MINUTE, misfire=misfire)
    assert minutes(done) == fire_of
    assert (done.skipped.count if done.skipped else 0) == skipped
    assert (done.slot, done.state) == (START + 11 * MINUTE, CheckinState.ACTIVE)


@pytest.mark.parametrize(("misfire", "fire_of", "skipped"), [("once", [0], 0), ("skip", [], 1), ("all", [0], 0)])
def test_a_one_shot_that_was_missed(misfire: str, fire_of: list[int], skipped: int) -> None:
    done = planned(START + timedelta(hours=3), misfire=misfire, schedule=At(at=START))
    assert (minutes(done), done.skipped.count if done.skipped else 0) == (fire_of, skipped)
    assert (done.state, done.slot, done.next_ms) == (CheckinState.ENDED, None, None)
    assert [fire.late for fire in done.fires] == [10800.0] * len(fire_of)


def test_it_ends_with_its_last_run_also_in_the_middle_of_many() -> None:
    done = planned(START + timedelta(hours=1), misfire="all", max_runs=5, runs=2)
    assert (minutes(done), done.runs, done.state) == ([0, 1, 2], 5, CheckinState.ENDED)


def test_many_slots_are_seen_to_step_by_step_and_only_the_last_step_fires_one() -> None:
    now = START + (SKIPPED_AT_ONCE + 10) * MINUTE
    done = planned(now)
    assert done.skipped
    assert (minutes(done), done.skipped.count, done.slot) == ([], SKIPPED_AT_ONCE, START + SKIPPED_AT_ONCE * MINUTE)
    assert len(planned(now, misfire="all").fires) == FIRED_AT_ONCE


def test_jitter_puts_a_slot_off_always_by_the_same() -> None:
    checkin = Checkin.build(
        schedule=At(at=START), note="look", target=Target(agent="dev-1"), sender="operator", jitter=600
    )
    due = {checkin.due(START) for _ in range(3)}
    assert len(due) == 1
    assert START <= due.pop() <= START + timedelta(seconds=600)
    others = {checkin.model_copy(update={"id": f"other-{number}"}).due(START) for number in range(20)}
    assert len(others) == 20


def test_nine_in_the_morning_is_nine_in_the_morning_on_both_sides_of_a_change_of_clocks() -> None:
    morning = Cron(expression="0 9 * * *", timezone="Europe/Berlin")
    slots = [datetime(2027, 3, 27, tzinfo=UTC), datetime(2027, 10, 30, tzinfo=UTC)]
    found = [morning.after(slot) for slot in slots] + [morning.after(slot + timedelta(days=1)) for slot in slots]
    assert [(slot.hour, slot.tzinfo) for slot in found if slot] == [(8, UTC), (7, UTC), (7, UTC), (8, UTC)]

"""Beat: check-ins come up when they should, each slot once, whatever happens to beat and broker."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from beats import BeatMachine, checkin, fires, leads
from clients import client_of
from faults import FaultyBroker
from nodes import Broker, Node, ProcessNode
from waiting import until

from torch_tasks import keys
from torch_tasks.beat.journal import Journal
from torch_tasks.beat.periodic import standing_entries
from torch_tasks.errors import InvalidCheckin
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import At, Checkin, CheckinState, Cron, Every, Fire, Misfire, SlotOutcome, milliseconds
from torch_tasks.store.checkins import HISTORY_KEPT, CheckinRecords
from torch_tasks.store.timetable import LINES_KEPT, Advance, Due, Timetable

pytestmark = pytest.mark.slow
SECONDS = 30


class ShiftedCheckins(CheckinRecords):
    """Check-ins that are added by another clock than the broker's."""

    def __init__(self, ahead: timedelta) -> None:
        of = fleet()
        super().__init__(of.client, of.settings, of.inboxes, of.records)
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.fixture
def store(empty: None) -> CheckinRecords:
    return fleet().checkins


@pytest.fixture
def machine(broker: Broker, empty: None) -> Iterator[BeatMachine]:
    machine = BeatMachine(broker)
    yield machine
    machine.close()


def outcomes(asked: Checkin) -> list[SlotOutcome]:
    """What became of its slots so far."""
    return [fire.outcome for fire in fires(asked)]


def published(task: str = "torch.checkin", queue: str = "torch.system") -> list[dict[str, str]]:
    """The headers of the tasks of this name in a queue, as often as they stand there, the oldest first."""
    client = fleet().client
    texts = [text for name in client.scan_iter(f"{queue}*") for text in client.lrange(name, 0, -1)]
    headers = [json.loads(text)["headers"] for text in texts]
    return [one for one in headers if one["task"] == task][::-1]


# ── coming up ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_check_in_comes_up_when_it_should_and_ends(store: CheckinRecords, machine: BeatMachine) -> None:
    beat = machine.beat()
    until(lambda: leads(beat), "beat leads")
    asked = checkin("look at the build\nand at the rest", seconds=1)
    slot = store.add(asked).slot
    until(lambda: outcomes(asked) == [SlotOutcome.FIRED], "it fires")
    (fire,) = fires(asked)
    assert fire.slot == slot
    assert fire.at >= fire.slot
    ended = store.get(asked.id)
    assert (ended.state, ended.runs, ended.slot, ended.last) == (CheckinState.ENDED, 1, None, fire)
    (task,) = published()
    assert (task["task"], task["id"]) == ("torch.checkin", fire.celery_id)
    assert task["argsrepr"] == f"developer-1: look at the build · slot {fire.slot:%Y-%m-%d %H:%M:%S}"


def test_what_is_added_changed_or_asked_for_wakes_a_beat_that_had_nothing_to_do(
    store: CheckinRecords, machine: BeatMachine
) -> None:
    beat = machine.beat(TORCH_BEAT_LEASE_SECONDS="60")  # else it would look every 20 s
    until(lambda: leads(beat), "beat leads")
    far = checkin()
    record = store.add(far)
    asked = checkin(seconds=0.3)
    store.add(asked)
    until(lambda: outcomes(asked), "it fires")
    sooner = At(at=store.now() + timedelta(seconds=0.3))
    store.change(far.model_copy(update={"schedule": sooner}), record.version)
    until(lambda: outcomes(far) == [SlotOutcome.FIRED], "it fires")
    store.run_now(far.id)
    until(lambda: outcomes(far) == [SlotOutcome.FIRED] * 2, "it fires once more")
    assert store.get(far.id).runs == 1


def test_it_ends_after_so_many_runs_or_at_its_end_and_not_while_it_is_paused(
    store: CheckinRecords, machine: BeatMachine
) -> None:
    start = store.now()
    each_second = Every(seconds=1, start=start)
    runs = checkin(schedule=each_second, max_runs=2)
    until_end = checkin(schedule=each_second, ends=start + timedelta(seconds=3.5))
    paused = checkin(schedule=each_second)
    for asked in (runs, until_end, paused):
        store.add(asked)
    store.pause(paused.id)
    store.run_now(paused.id)
    machine.beat()
    for asked in (runs, until_end):
        until(lambda asked=asked: store.get(asked.id).state is CheckinState.ENDED, "it ends")
    assert [fire.slot for fire in fires(runs)] == [start + timedelta(seconds=number) for number in (1, 2)]
    assert [fire.slot for fire in fires(until_end)] == [start + timedelta(seconds=number) for number in (1, 2, 3)]
    assert len(fires(paused)) == 1
    assert (store.get(paused.id).state, store.get(paused.id).runs) == (CheckinState.PAUSED, 0)


def test_the_note_arrives_in_the_pane_of_an_agent(node: Node, store: CheckinRecords, machine: BeatMachine) -> None:
    node.agent_worker("developer-1")
    machine.node_worker()
    machine.beat()
    said = node.work / "said"
    asked = checkin(f"echo '{{agent}} looks, {{late}}' > {said}", seconds=0.1)
    store.add(asked)
    until(said.exists, "the note was typed", SECONDS)
    until(lambda: fires(asked)[0].receipts and fires(asked)[0].receipts[0].state == "acknowledged", "the history knows")
    assert said.read_text() == "developer-1 looks, on time\n"


def test_what_cannot_be_read_is_set_aside_and_the_others_go_on(store: CheckinRecords, machine: BeatMachine) -> None:
    broken, gone, odd, good = checkin(seconds=1), checkin(seconds=1), checkin(seconds=1), checkin(seconds=1.2)
    for asked in (broken, gone, odd, good):
        store.add(asked)
    fleet().client.delete(keys.checkin(odd.id))
    fleet().client.set(keys.checkin(odd.id), "no hash at all")
    fleet().client.hset(keys.checkin(broken.id), "checkin", '{"id": "from-the-future", "planet": "mars"}')
    fleet().client.delete(keys.checkin(gone.id))
    beat = machine.beat()
    until(lambda: outcomes(good), "the other one fires")
    assert "planet" in store.aside()[broken.id]
    assert f"check-in {broken.id} cannot be read and is set aside" in beat.logs()
    with pytest.raises(InvalidCheckin, match="remove it"):
        store.get(broken.id)
    assert fleet().client.zcard(keys.CHECKINS_DUE) == len(fleet().client.zrange(keys.PERIODIC, 0, -1))
    assert len(published()) == 1
    store.add(checkin(id=broken.id))
    assert store.aside() == {}


# ── misfires ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", Misfire)
def test_slots_that_passed_without_a_beat_are_all_accounted_for(
    store: CheckinRecords, machine: BeatMachine, policy: Misfire
) -> None:
    now = store.now()
    start = now - timedelta(hours=10, minutes=30)
    asked = checkin(schedule=Every(seconds=3600, start=start), misfire=policy)
    ShiftedCheckins(timedelta(hours=-11)).add(asked)
    slots = [start + timedelta(hours=number) for number in range(11)]
    machine.beat()
    until(lambda: store.get(asked.id).slot == start + timedelta(hours=11), "it has caught up")
    told = fires(asked)
    if policy is Misfire.ALL:
        assert [(fire.outcome, fire.slot) for fire in told] == [(SlotOutcome.FIRED, slot) for slot in slots]
    else:
        skipped, *fired = told
        count = 11 if policy is Misfire.SKIP else 10
        assert (skipped.outcome, skipped.count, skipped.since) == (SlotOutcome.SKIPPED, count, slots[0])
        assert (skipped.slot, [fire.slot for fire in fired]) == (slots[count - 1], slots[count:])
    assert [fire.late // 60 for fire in told if fire.outcome is SlotOutcome.FIRED][-1:] in ([], [30])
    assert len(published()) == store.get(asked.id).runs == {"once": 1, "skip": 0, "all": 11}[policy]


def test_a_month_of_missed_minutes_does_not_keep_beat_from_the_others(
    store: CheckinRecords, machine: BeatMachine
) -> None:
    asked = checkin(schedule=Cron(expression="* * * * *"))
    ShiftedCheckins(timedelta(days=-30)).add(asked)
    other = checkin(seconds=1)
    store.add(other)
    machine.beat()
    until(lambda: outcomes(other), "the other one fires", SECONDS)
    until(lambda: (store.get(asked.id).slot or store.now()) > store.now(), "it has caught up", SECONDS)
    told = fires(asked)
    assert abs(sum(fire.count for fire in told) - 30 * 24 * 60) <= 3
    assert len([fire for fire in told if fire.outcome is SlotOutcome.FIRED]) in (1, 2)


# ── Celery's own entries ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_stands_in_celerys_schedule_comes_up_through_it_until_it_stands_there_no_more(
    store: CheckinRecords, machine: BeatMachine
) -> None:
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    beat = machine.beat(app="beat_app", ENTRIES="every second,each minute,of its own,broken,unknown", **path)
    until(lambda: len(published("torch.prune", "nobody")) >= 3, "one comes up each second")
    ids = [task["id"] for task in published("torch.prune", "nobody")]
    assert len(set(ids)) == len(ids)
    standing = [f"celery:{name}" for name in standing_entries(fleet().settings)]
    names = {f"celery:{name}" for name in ("every second", "each minute", "of its own", "unknown")} | {*standing}
    assert {str(one) for one in fleet().client.zrange(keys.PERIODIC, 0, -1)} == names
    assert "'broken' in beat_schedule cannot be used" in beat.logs()
    assert "celery:unknown could not be sent" in beat.logs()
    due = {str(name): score / 1000 - time.time() for name, score in _due()}
    assert 0 < due["celery:each minute"] <= 60
    assert 3500 < due["celery:of its own"] <= 3600
    beat.kill("SIGTERM")
    runs = int(fleet().client.hget(keys.checkin("celery:every second"), "runs") or 0)
    again = machine.beat("again", app="beat_app", ENTRIES="every second", **path)
    until(lambda: leads(again), "another one leads")
    until(
        lambda: {str(name) for name, _ in _due()} == {"celery:every second", *standing},
        "the rest is gone",
    )
    until(lambda: int(fleet().client.hget(keys.checkin("celery:every second"), "runs") or 0) > runs, "it goes on")


def _due() -> list[tuple[str, float]]:
    return fleet().client.zrange(keys.CHECKINS_DUE, 0, -1, withscores=True)  # type: ignore[return-value]


# ── several beats ────────────────────────────────────────────────────────────────────────────────────────────────


def two(machine: BeatMachine) -> tuple[ProcessNode, ProcessNode]:
    """The beat that leads, and one that stands by."""
    first = machine.beat("first")
    until(lambda: leads(first), "the first one leads")
    second = machine.beat("second")
    until(lambda: "beat: Starting" in second.logs(), "the second one runs")
    return first, second


def test_the_next_one_leads_when_the_leader_is_killed_and_at_once_when_it_leaves(
    store: CheckinRecords, machine: BeatMachine
) -> None:
    first, second = two(machine)
    asked = checkin(schedule=Every(seconds=1, start=store.now()), when="now")
    store.add(asked)
    until(lambda: len(fires(asked)) >= 2, "it comes up")
    first.kill()
    until(lambda: leads(second), "the second one leads")
    before = len(fires(asked))
    until(lambda: len(fires(asked)) >= before + 2, "it comes up again")
    slots = [fire.slot for fire in fires(asked)]
    assert slots == [slots[0] + timedelta(seconds=number) for number in range(len(slots))]
    third = machine.beat("third", TORCH_BEAT_LEASE_SECONDS="600")
    until(lambda: "beat: Starting" in third.logs(), "a third one runs")
    second.kill("SIGTERM")
    until(lambda: leads(third), "the third one leads")


def test_a_leader_that_was_stopped_for_too_long_is_refused_what_it_was_about_to_fire(
    store: CheckinRecords, machine: BeatMachine
) -> None:
    first, second = two(machine)
    asked = checkin(schedule=Every(seconds=1, start=store.now()), when="now")
    store.add(asked)
    first.process.send_signal(signal.SIGSTOP)
    until(lambda: leads(second), "the second one leads")
    first.process.send_signal(signal.SIGCONT)
    until(lambda: "leads no more" in first.logs(), "the first one hears of it")
    until(lambda: len(fires(asked)) >= 5, "it comes up")
    assert leads(second)
    slots = [fire.slot for fire in fires(asked)]
    assert slots == [slots[0] + timedelta(seconds=number) for number in range(len(slots))]
    fired = [fire.celery_id for fire in fires(asked)]
    assert [task["id"] for task in published()][: len(fired)] == fired


def test_what_a_late_leader_writes_is_refused_whatever_it_read_before(store: CheckinRecords) -> None:
    timetable = Timetable(fleet().client, fleet().settings)
    asked = checkin()
    record = store.add(asked)
    assert record.due
    assert record.slot
    late, _ = timetable.lead("late", "")
    assert timetable.lead("other", "")[0] == ""
    fleet().client.delete(keys.BEAT_LEADER)  # its time is over
    leader, _ = timetable.lead("other", "")
    due = Due(asked.id, int(record.due.timestamp() * 1000))
    fire = Fire(checkin_id=asked.id, slot=record.slot, outcome=SlotOutcome.FIRED, at=record.slot)
    ended = Advance(due, "1", CheckinState.ENDED, runs=1, fires=(fire,))
    assert not timetable.tick(late, 10).leads
    assert not timetable.advance(late, [ended])
    assert (store.get(asked.id), fires(asked)) == (record, [])
    assert timetable.advance(leader, [ended])
    assert (store.get(asked.id).state, fires(asked)) == (CheckinState.ENDED, [fire])


# ── the broker ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyBroker]:
    """A broker to which the worst happens; this process is a client of it."""
    monkeypatch.delenv("TORCH_TEST_BROKER_URL", raising=False)
    broker = FaultyBroker()
    with client_of(broker, tmp_path / "client"):
        yield broker
    broker.close()


@pytest.fixture
def by_faulty(faulty: FaultyBroker) -> Iterator[BeatMachine]:
    machine = BeatMachine(faulty)
    yield machine
    machine.close()


def place(position: str) -> tuple[int, ...]:
    """A place in a stream, as it can be compared."""
    return tuple(int(part) for part in position.split("-")) if position else ()


def journalled(machine: BeatMachine) -> tuple[int, ...]:
    """How far the journal of the machine's beat has followed the changes."""
    [file] = (machine.folder / "beat" / "beat").glob("*.sqlite")
    with closing(Journal(file)) as journal:
        return place(journal.position)


@pytest.mark.parametrize("fault", ["restarted", "empty", "flushed", "in the past"])
def test_a_broker_that_was_away_or_forgot_knows_all_of_it_again(
    faulty: FaultyBroker, by_faulty: BeatMachine, fault: str
) -> None:
    store = fleet().checkins
    ended, each, paused, removed = (
        checkin(seconds=1),
        checkin(schedule=Every(seconds=1, start=store.now()), when="now"),
        checkin(),
        checkin(),
    )
    for asked in (ended, paused, removed):
        store.add(asked)
    snapshot = faulty.snapshot()
    store.add(each)
    beat = by_faulty.beat()
    until(lambda: leads(beat) and store.get(ended.id).runs and store.get(each.id).runs >= 2, "both have come up")
    store.pause(paused.id)
    store.remove(removed.id)
    by_hand = store.run_now(paused.id)
    until(lambda: SlotOutcome.FIRED in outcomes(paused), "that, too")
    [(told, _)] = faulty.client.xrevrange(keys.CHECKIN_CHANGES, count=1)
    until(lambda: journalled(by_faulty) >= place(told), "all of it is in the journal")
    before = fires(each)
    match fault:
        case "restarted":
            faulty.kill()
            faulty.start()
        case "empty":
            faulty.lose_everything()
        case "flushed":
            faulty.client.flushall()
        case _:
            faulty.go_back_to(snapshot)
    until(lambda: each.id in [one.checkin.id for one in store.records()], "the broker knows of it", SECONDS)
    until(lambda: len(fires(each)) >= len(before) + 2, "it comes up again", SECONDS)
    assert (store.get(ended.id).state, store.get(ended.id).runs) == (CheckinState.ENDED, 1)
    assert store.get(paused.id).state is CheckinState.PAUSED
    assert [fire.slot for fire in fires(paused)] == [by_hand.slot]
    assert removed.id not in {one.checkin.id for one in store.records()}
    slots = [fire.slot for fire in fires(each)]
    assert slots == [slots[0] + timedelta(seconds=number) for number in range(len(slots))]
    assert store.get(each.id).runs == len(slots)
    if fault != "restarted":  # what was given to the fleet and is not known to have arrived is given to it again
        assert fires(ended)[0].celery_id in {task["id"] for task in published()}


def test_a_slot_that_nobody_was_told_about_is_fired_again_however_many_came_after_it(
    store: CheckinRecords, broker: Broker
) -> None:
    asked = checkin(schedule=Every(seconds=1, start=store.now()))
    first = store.add(asked).slot
    assert first
    slots = [first + timedelta(seconds=number) for number in range(HISTORY_KEPT + 20)]
    open_ones = [slots[0], slots[3], *slots[-LINES_KEPT * 2 :]]
    for slot in slots:
        outcome = SlotOutcome.FIRED if slot in open_ones else SlotOutcome.SENT
        store.note(Fire(checkin_id=asked.id, slot=slot, at=slot, outcome=outcome))
    assert len(store.history(asked.id, limit=len(slots))) == HISTORY_KEPT + 2
    timetable = Timetable(fleet().client, fleet().settings)
    accounts = timetable.accounts([asked.id])
    broker.empty()
    assert timetable.restore(accounts) == 1
    due = {member.partition("@")[2] for member in fleet().client.zrange(keys.CHECKINS_DUE, 0, -1)} - {""}
    assert due == {str(milliseconds(slot)) for slot in open_ones}


# ── the clock on the wall ────────────────────────────────────────────────────────────────────────────────────────


def test_a_time_of_day_stays_that_time_when_the_clocks_change(
    store: CheckinRecords, machine: BeatMachine, tmp_path: Path
) -> None:
    shift = tmp_path / "shift"

    def at(moment: datetime) -> None:
        ahead = moment - store.now()
        (tmp_path / "new").write_text(str(int(ahead.total_seconds() * 1000)))
        (tmp_path / "new").replace(shift)

    morning = checkin(schedule=Cron(expression="0 9 * * *", timezone="Europe/Berlin"), id="morning")
    night = checkin(schedule=Cron(expression="30 2 * * *", timezone="Europe/Berlin"), id="night")
    begin = datetime(2027, 3, 26, 23, tzinfo=UTC)
    for asked in (morning, night):
        ShiftedCheckins(begin - store.now()).add(asked)
    at(begin)
    path = {"PYTHONPATH": str(Path(__file__).parents[2]), "SHIFT": str(shift)}
    machine.start("beat", "beat", "--scheduler", "shifted_beat:ShiftedScheduler", **path)
    # Summer time begins on the 28th at 01:00 UTC: half past two does not exist then.
    expected = {
        "night": [(27, 1, 30), (28, 1, 0), (29, 0, 30)],
        "morning": [(27, 8, 0), (28, 7, 0), (29, 7, 0)],
    }
    for day in range(3):
        for asked in (night, morning):
            due = datetime(2027, 3, *expected[asked.id][day], tzinfo=UTC)
            at(due - timedelta(seconds=2))
            until(lambda asked=asked, day=day: len(fires(asked)) == day + 1, f"{asked.id} of day {day}", SECONDS)
            assert [(fire.outcome, fire.slot) for fire in fires(asked)][-1] == (SlotOutcome.FIRED, due)
    # And ends on October 31st at 01:00 UTC: half past two comes twice, and it once.
    last = datetime(2027, 10, 30, 12, tzinfo=UTC)
    for asked in (morning, night):
        store.remove(asked.id)
        ShiftedCheckins(last - store.now()).add(asked)
    for moment in (datetime(2027, 10, 31, 0, 30, tzinfo=UTC), datetime(2027, 10, 31, 8, 0, tzinfo=UTC)):
        at(moment - timedelta(seconds=2))
        asked = night if moment.hour == 0 else morning
        until(lambda asked=asked: fires(asked), f"{asked.id} in autumn", SECONDS)
    assert [(one.id, [fire.slot.hour for fire in fires(one)]) for one in (night, morning)] == [
        ("night", [0]),
        ("morning", [8]),
    ]
    assert store.get("night").slot == datetime(2027, 11, 1, 1, 30, tzinfo=UTC)

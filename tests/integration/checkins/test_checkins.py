"""Check-ins: how they are kept, and what becomes of one fire."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from beats import BeatMachine, checkin, fires, registered
from nodes import Broker
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.app import CHECKIN, app
from torch_tasks.checkins.delivery import CheckinDelivery
from torch_tasks.communication import MessageState
from torch_tasks.errors import BrokerForgot, CheckinChanged, CheckinNotFound, InvalidCheckin
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.model.checkin import At, Checkin, CheckinState, Cron, Every, Fire, SlotOutcome, Target, milliseconds
from torch_tasks.model.task import TaskState
from torch_tasks.store.checkins import CheckinRecords
from torch_tasks.store.signed_checkins import signed_checkin

pytestmark = pytest.mark.usefixtures("empty")
SLOT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def store(empty: None) -> CheckinRecords:
    return fleet().checkins


# ── kept ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_added_is_found_again_whole_and_the_same_id_is_one_check_in(store: CheckinRecords) -> None:
    asked = checkin("look at {task}: ünïcode\nand all lines", when="now", misfire="all", jitter=5, max_runs=3)
    record = store.add(asked)
    assert record.checkin.model_copy(update={"signature": None}) == asked
    assert (record.state, record.slot, record.runs, record.version) == (CheckinState.ACTIVE, asked.schedule.at, 0, 1)
    assert record.due
    assert timedelta(0) <= record.due - record.slot <= timedelta(seconds=5, milliseconds=1)
    assert store.add(asked.model_copy(update={"note": "another"})) == record
    assert store.get(asked.id) == record
    assert store.add(asked.model_copy(update={"schedule": At(at=SLOT)})) == record


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schedule": At(at=SLOT)}, "never come up"),
        ({"schedule": Cron(expression="0 9 * * *"), "ends": SLOT}, "never come up"),
        ({"note": "x" * 2_000_000}, "TORCH_MESSAGE_LIMIT_BYTES"),
    ],
)
def test_what_can_never_come_up_or_is_too_long_is_refused(
    store: CheckinRecords, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidCheckin, match=said):
        store.add(checkin(**fields))
    assert store.records() == []


def test_they_are_found_by_target_and_sender_page_by_page(store: CheckinRecords) -> None:
    many = [checkin(f"note {number}", id=f"c-{number}") for number in range(1203)]
    store.add_all(many)
    store.add(checkin(target=Target(role="qa"), sender="pm-1", id="for-qa"))
    assert sorted(record.checkin.id for record in store.records()) == sorted([*(one.id for one in many), "for-qa"])
    assert [record.checkin.id for record in store.records(role="qa")] == ["for-qa"]
    assert [record.checkin.id for record in store.records(sender="pm-1")] == ["for-qa"]
    assert len(store.records(agent="developer-1", state=CheckinState.ACTIVE)) == 1203
    assert store.records(agent="developer-1", state=CheckinState.PAUSED) == []


def test_a_change_counts_only_for_the_version_it_was_made_from(store: CheckinRecords) -> None:
    record = store.add(checkin())
    noted = record.checkin.model_copy(update={"note": "look at the tests"})
    changed = store.change(noted, record.version)
    assert (changed.checkin.note, changed.version, changed.slot) == ("look at the tests", 2, record.slot)
    with pytest.raises(CheckinChanged, match="version 2, not 1"):
        store.change(record.checkin, record.version)
    assert store.get(noted.id) == changed
    later = Every(seconds=60, start=store.now() + timedelta(hours=2))
    assert store.change(noted.model_copy(update={"schedule": later}), 2).slot == later.start
    with pytest.raises(InvalidCheckin, match="never"):
        store.change(noted.model_copy(update={"schedule": At(at=SLOT)}), 3)


def test_paused_it_does_not_come_up_and_resumed_it_does_from_its_next_slot_on(
    store: CheckinRecords, broker: Broker
) -> None:
    asked = checkin(schedule=Every(seconds=3600, start=store.now() - timedelta(hours=5)))
    slot = store.add(asked).slot
    paused = store.pause(asked.id)
    assert (paused.state, paused.slot, paused.due) == (CheckinState.PAUSED, None, None)
    assert broker.client.zcard(keys.CHECKINS_DUE) == 0
    assert store.pause(asked.id) == paused
    resumed = store.resume(asked.id)
    assert (resumed.state, resumed.slot) == (CheckinState.ACTIVE, slot)
    assert broker.client.zcard(keys.CHECKINS_DUE) == 1


def test_what_is_removed_is_gone_with_its_history(store: CheckinRecords, broker: Broker) -> None:
    asked = checkin()
    store.add(asked)
    store.note(Fire(checkin_id=asked.id, slot=SLOT, outcome=SlotOutcome.SENT, at=SLOT))
    assert len(fires(asked)) == 1
    store.remove(asked.id)
    for gone in (store.get, store.history, store.pause, store.resume, store.remove, store.run_now):
        with pytest.raises(CheckinNotFound, match=asked.id):
            gone(asked.id)
    assert store.records() == []
    assert broker.client.zcard(keys.CHECKINS_DUE) == 0
    assert not store.note(Fire(checkin_id=asked.id, slot=SLOT, outcome=SlotOutcome.SENT, at=SLOT))
    assert store.add(asked).runs == 0
    assert fires(asked) == []


def test_a_history_keeps_the_latest_and_what_is_known_later_counts(store: CheckinRecords) -> None:
    asked = checkin()
    store.add(asked)

    def fire(minute: int, outcome: SlotOutcome) -> Fire:
        return Fire(checkin_id=asked.id, slot=SLOT + timedelta(minutes=minute), outcome=outcome, at=SLOT)

    for minute in range(150):
        store.note(fire(minute, SlotOutcome.SENT))
        store.note(fire(minute, SlotOutcome.FIRED))
    assert [(one.slot.minute, one.outcome) for one in store.history(asked.id, 2)] == [
        (29, SlotOutcome.SENT),
        (28, SlotOutcome.SENT),
    ]
    assert len(store.history(asked.id, 1000)) == 100
    assert store.get(asked.id).last == store.history(asked.id, 1)[0]


# ── delivered ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def known(empty: None, broker: Broker) -> None:
    """The broker has been there for a while: who is unknown is so for good."""
    broker.client.hset(keys.BROKER_STATE, "watch", 0)


def deliver(asked: Checkin, slot: datetime = SLOT, late: float = 0.0) -> Fire:
    """What one fire becomes."""
    from torch_tasks.tasks.run import run

    fire = CheckinDelivery(fleet(), asked, slot, late, lambda spec: run.apply_async((spec,), task_id=spec.id)).deliver()
    assert fire.slot == slot
    return fire


def texts(agent: str = "developer-1") -> list[str]:
    """What waits in the inbox of an agent."""
    inboxes = fleet().inboxes
    return [inboxes.get(entry.message_id).message.message for entry in inboxes.waiting(agent)]


def test_a_fire_is_one_message_however_often_it_is_delivered(store: CheckinRecords) -> None:
    registered("developer-1")
    asked = checkin()
    store.add(asked)
    first = deliver(asked)
    assert (first.outcome, deliver(asked).receipts) == (SlotOutcome.SENT, first.receipts)
    assert texts() == ["look at the build"]
    (told,) = fires(asked)
    (receipt,) = told.receipts
    assert (told.outcome, receipt.agent, receipt.state) == (SlotOutcome.SENT, "developer-1", MessageState.ACCEPTED)
    message = fleet().inboxes.get(receipt.message or "").message
    assert (message.kind, message.sender, message.when) == ("checkin", "operator", "idle")


def test_a_later_fire_takes_the_place_of_one_that_still_waits_and_the_history_says_so(store: CheckinRecords) -> None:
    registered("developer-1")
    asked = checkin("look at {slot}")
    store.add(asked)
    slots = [SLOT + timedelta(minutes=5 * number) for number in range(3)]
    for slot in (slots[0], slots[2], slots[1], slots[0]):  # and none comes back
        deliver(asked, slot)
    assert texts() == ["look at 2026-03-02 09:10:00"]
    first, second, third = fires(asked)
    assert [one.receipts[0].state for one in (first, third)] == [MessageState.EXPIRED, MessageState.ACCEPTED]
    assert (second.outcome, second.note) == (SlotOutcome.SKIPPED, "a later one has taken its place")
    assert "slot 2026-03-02 09:10:00" in fleet().inboxes.get(first.receipts[0].message or "").note


def test_now_fires_pile_up_and_skip_leaves_out_who_works(store: CheckinRecords) -> None:
    info = registered("developer-1")
    now = checkin("now", when="now")
    skip = checkin("skip", when="skip")
    for asked in (now, skip):
        store.add(asked)
    for minute in range(2):
        deliver(now, SLOT + timedelta(minutes=minute))
    assert deliver(skip).outcome is SlotOutcome.SENT
    fleet().registry.heartbeat(info.model_copy(update={"state": AgentState.WORKING, "current_task": "t-1"}))
    skipped = deliver(skip, SLOT + timedelta(minutes=1))
    assert (skipped.outcome, skipped.note) == (SlotOutcome.SKIPPED, "developer-1 was at work with task t-1")
    assert texts() == ["now", "now", "skip"]


def test_an_agent_that_is_away_gets_it_later_and_one_that_nobody_knows_does_not(store: CheckinRecords) -> None:
    fleet().registry.leave(registered("developer-1"))
    asked, lost = checkin(), checkin(target=Target(agent="developer-11"))
    for one in (asked, lost):
        store.add(one)
    kept = deliver(asked)
    assert (kept.outcome, kept.note) == (SlotOutcome.SENT, "developer-1 is offline: kept until it returns")
    assert texts() == ["look at the build"]
    refused = deliver(lost)
    assert refused.outcome is SlotOutcome.REFUSED
    assert "developer-1?" in refused.note
    assert fires(lost) == [refused]
    fleet().client.hset(keys.BROKER_STATE, "watch", fleet().client.time()[0] * 1000)  # it has only just come back
    with pytest.raises(BrokerForgot):
        deliver(lost, SLOT + timedelta(minutes=1))
    assert fires(lost) == [refused]


def test_of_a_group_those_get_it_who_are_there_or_all_if_nobody_is(store: CheckinRecords) -> None:
    there, away = registered("developer-1"), registered("developer-2")
    registered("qa-1", "qa", workdir="/srv/other")
    fleet().registry.leave(away)
    role, project = checkin(target=Target(role="developer")), checkin(target=Target(project="shop"))
    none = checkin(target=Target(role="architect"))
    for asked in (role, project, none):
        store.add(asked)
        deliver(asked)
    assert [len(texts(name)) for name in ("developer-1", "developer-2", "qa-1")] == [2, 0, 0]
    assert [one.outcome for one in fires(none)] == [SlotOutcome.REFUSED]
    fleet().registry.leave(there)
    told = deliver(role, SLOT + timedelta(minutes=1))
    assert [receipt.agent for receipt in told.receipts] == ["developer-1", "developer-2"]
    assert len(texts("developer-2")) == 1


def test_the_note_is_filled_with_what_the_agent_has_open(store: CheckinRecords, torch: Torch) -> None:
    torch.enqueue("build the shop\nall of it", agent="developer-1", id="t-7")
    registered("developer-1", state=AgentState.WORKING, current_task="t-7")
    note = "{agent} in {project}: {task_title} ({task}, {task_state}), {late}, {unknown} {} {sender}"
    asked = checkin(note, sender="pm-1")
    store.add(asked)
    deliver(asked)
    deliver(checkin("plain", id="plain"), late=7500)
    assert texts() == [
        "developer-1 in /srv/shop: build the shop (t-7, queued), on time, {unknown} {} pm-1",
        "plain\n(This was due at 2026-03-02 09:00:00 UTC, 2 h 5 min ago.)",
    ]


def test_a_note_to_oneself_or_to_a_peer_is_no_conversation_that_goes_to_the_manager(store: CheckinRecords) -> None:
    for name, role in (("developer-1", "developer"), ("developer-2", "developer"), ("pm-1", "project-manager")):
        registered(name, role)
    for sender in ("developer-1", "developer-2"):
        assert deliver(checkin(sender=sender)).outcome is SlotOutcome.SENT
    assert len(texts("developer-1")) == 2
    assert texts("pm-1") == []


def test_a_task_is_enqueued_once_for_each_slot_and_not_while_nobody_has_begun_with_the_last(
    store: CheckinRecords, torch: Torch
) -> None:
    asked = checkin("run the nightly tests of {slot}", target=Target(task={"role": "qa", "priority": "high"}))
    store.add(asked)
    fire = deliver(asked)
    assert deliver(asked).task == fire.task
    (record,) = torch.tasks()
    assert (record.spec.prompt, record.spec.id) == ("run the nightly tests of 2026-03-02 09:00:00", fire.task)
    assert fires(asked)[0].task_state is TaskState.QUEUED
    later = deliver(asked, SLOT + timedelta(days=1))
    assert (later.outcome, later.note) == (SlotOutcome.SKIPPED, f"no agent has begun task {fire.task} yet")
    torch.task(fire.task or "").cancel()
    assert deliver(asked, SLOT + timedelta(days=2)).outcome is SlotOutcome.SENT
    assert len(torch.tasks()) == 2


@pytest.fixture
def machine(broker: Broker, empty: None) -> Iterator[BeatMachine]:
    machine = BeatMachine(broker)
    yield machine
    machine.close()


@pytest.mark.slow
def test_a_node_worker_delivers_what_was_fired(store: CheckinRecords, machine: BeatMachine) -> None:
    fleet().client.hset(keys.BROKER_STATE, "watch", milliseconds(store.now()))  # the broker is new
    registered("developer-1")
    asked = checkin()
    store.add(asked)
    unknown = checkin(target=Target(agent="nobody-1"))  # it may still say that it is there
    store.add(unknown)
    for one in (unknown, asked):
        app.send_task(CHECKIN, (signed_checkin(one).model_dump(mode="json"), SLOT.isoformat(), 0.0))
    machine.node_worker()
    until(lambda: texts() == ["look at the build"], "the message is in the inbox")
    until(lambda: [one.outcome for one in fires(asked)] == [SlotOutcome.SENT], "the history says so")
    assert fires(unknown) == []
    until(lambda: [one.outcome for one in fires(unknown)] == [SlotOutcome.REFUSED], "nobody is there")


def test_a_task_that_could_never_be_enqueued_is_refused_at_once() -> None:
    with pytest.raises(InvalidCheckin, match="prioritty"):
        checkin(target=Target(task={"prioritty": "high"}))

"""Whatever happens to the broker, what is held stays held, and nobody takes anything before all is told."""

from __future__ import annotations

import time

import pytest
from transport_parts import LEASE_SECONDS, QUEUE, Bench
from waiting import until

from torch_tasks import keys
from torch_tasks.transport.deliveries import new_tag

RECOVERY_SECONDS = 3.0


def begun(bench: Bench, seconds: float) -> tuple[str, str]:
    """A task that has begun, and the tag of its delivery."""
    task = bench.send("work", seconds)
    return task, bench.await_seen("begin", task)[0]["tag"]


def once(bench: Bench, task: str) -> None:
    """The task ends, is acknowledged, and was run once."""
    bench.await_seen("end", task)
    bench.await_settled()
    assert len(bench.seen("begin", task)) == 1


def kill(bench: Bench) -> None:
    """Kill the broker."""
    server = bench.broker.process()
    server.kill()
    server.wait(10)


def await_open(bench: Bench) -> None:
    """The gate is open."""
    until(lambda: bench.gate.state().open, "the gate opens", 60)


def test_nothing_is_redelivered_when_the_broker_was_frozen_for_several_lease_times(own_bench: Bench) -> None:
    own_bench.worker("one")
    own_bench.worker("other")
    task, _ = begun(own_bench, LEASE_SECONDS * 4)
    own_bench.broker.process().suspend()
    time.sleep(LEASE_SECONDS * 2.5)
    own_bench.broker.process().resume()
    once(own_bench, task)
    assert not own_bench.seen("lost")
    assert not own_bench.seen("return")


def test_a_task_runs_on_while_the_broker_is_restarted_with_its_data(lasting_bench: Bench) -> None:
    lasting_bench.worker("one")
    lasting_bench.worker("other")
    task, _ = begun(lasting_bench, LEASE_SECONDS * 3)
    for _ in range(2):
        epoch = lasting_bench.gate.state().epoch
        time.sleep(1.2)  # what is older than a second is on the disk
        kill(lasting_bench)
        lasting_bench.broker.start()
        await_open(lasting_bench)
        assert lasting_bench.gate.state().epoch == epoch + 1
    once(lasting_bench, task)
    assert len(lasting_bench.seen("return")) == 4


def test_the_end_of_a_task_is_told_when_the_broker_is_back(lasting_bench: Bench) -> None:
    lasting_bench.worker("one")
    lasting_bench.worker("other")
    task, tag = begun(lasting_bench, 5)
    time.sleep(1.2)
    kill(lasting_bench)
    lasting_bench.await_seen("end", task)
    time.sleep(LEASE_SECONDS)
    lasting_bench.broker.start()
    assert lasting_bench.deliveries.message(tag) is not None
    once(lasting_bench, task)


def test_a_broker_that_is_back_empty_hears_what_is_held_before_anybody_takes_anything(own_bench: Bench) -> None:
    own_bench.worker("one", recovery_seconds=RECOVERY_SECONDS)
    own_bench.worker("other", recovery_seconds=RECOVERY_SECONDS)
    task, tag = begun(own_bench, 12)
    message = own_bench.deliveries.message(tag)
    kill(own_bench)
    own_bench.broker.data.lose()
    own_bench.broker.start()
    waiting = own_bench.send("work", 0)
    until(lambda: own_bench.deliveries.message(tag) == message, "the delivery is reinstated", 60)
    assert not own_bench.gate.state().open
    own_bench.await_seen("begin", waiting)
    assert own_bench.gate.state().open
    entered = own_bench.seen("return")[0]["at"]
    assert own_bench.seen("begin", waiting)[0]["at"] >= entered + RECOVERY_SECONDS * 1000 - 500
    once(own_bench, task)
    assert own_bench.gate.state().epoch == 2  # the workers knew the first


def test_the_gate_closes_to_a_broker_that_came_back_from_the_past(own_bench: Bench) -> None:
    own_bench.worker("busy")
    own_bench.worker("idle")
    await_open(own_bench)
    own_bench.broker.stop()
    own_bench.broker.data.copy_to(own_bench.folder / "past")
    for _ in range(2):
        own_bench.broker.start()
        await_open(own_bench)
        own_bench.broker.stop()
    own_bench.broker.start()
    await_open(own_bench)
    present = own_bench.gate.state()
    task, tag = begun(own_bench, 15)
    kill(own_bench)
    own_bench.broker.data.go_back_to(own_bench.folder / "past")
    own_bench.broker.start()
    past = own_bench.gate.state()
    assert not past.open
    assert past.epoch < present.epoch
    await_open(own_bench)
    assert own_bench.gate.state().epoch == present.epoch + 1
    assert tag in own_bench.leases()
    once(own_bench, task)


def test_who_opens_the_gate_counts_on_from_the_largest_epoch_that_anybody_brought(own_bench: Bench) -> None:
    gate = own_bench.gate
    before = gate.state()
    own_bench.broker.client.hset(keys.BROKER_STATE, "server", "another")
    assert gate.enter(before.identity, 2000, 7) == (False, 7, f"{before.identity}@")
    assert gate.state().epoch == before.epoch, "it was not opened yet"
    assert gate.enter(before.identity, 2000, 2) == (False, 7, f"{before.identity}@"), "who knows less learns of it"
    until(lambda: gate.enter(before.identity, 2000, 0).open, "one that knows nothing opens it")
    assert gate.state().open
    assert gate.state().epoch == 8
    own_bench.broker.client.hset(keys.BROKER_STATE, "server", "another")
    until(lambda: gate.enter(before.identity, 0, 0).open, "it is opened again")
    assert gate.state().epoch == 9


def test_a_broker_emptied_under_its_workers_hears_it_all_again(bench: Bench) -> None:
    bench.worker("busy")
    task, tag = begun(bench, 6)
    bench.broker.client.flushall()
    until(lambda: bench.deliveries.message(tag) is not None, "the delivery is reinstated", 60)
    await_open(bench)
    once(bench, task)


def test_what_goes_back_to_a_broker_that_forgot_it_is_not_lost(own_bench: Bench) -> None:
    own_bench.worker("patient")
    tasks = [own_bench.send("work", 0, countdown=6) for _ in range(3)]
    until(lambda: len(own_bench.leases()) == 3, "all three wait in the worker")
    kill(own_bench)
    own_bench.broker.data.lose()
    until(lambda: "broker lost" in own_bench.workers[0].logs(), "the worker gives back what it has not begun", 30)
    own_bench.broker.start()
    own_bench.await_seen("end", count=3)
    own_bench.await_settled()
    assert sorted(line["id"] for line in own_bench.seen("begin")) == sorted(tasks)


def test_a_new_broker_needs_no_recovery_and_a_restarted_one_does(own_bench: Bench) -> None:
    assert own_bench.gate.state().open
    assert not own_bench.gate.open_new()
    own_bench.broker.stop()
    own_bench.broker.start()
    assert not own_bench.gate.state().open
    assert not own_bench.gate.open_new()
    own_bench.worker("first")
    await_open(own_bench)
    assert own_bench.await_seen("return")


def test_the_gate_waits_for_an_account_that_takes_long_and_finds_the_broker_away(own_bench: Bench) -> None:
    own_bench.worker("quick", recovery_seconds=RECOVERY_SECONDS)
    own_bench.worker("slow", "-Q", "nothing", recovery_seconds=RECOVERY_SECONDS, account_seconds=5)
    own_bench.broker.stop()
    own_bench.broker.start()
    task = own_bench.send("work")
    begin = own_bench.await_seen("begin", task)[0]
    [account] = own_bench.seen("account")
    assert account["tries"] == 3
    assert account["at"] <= begin["at"]


def test_who_missed_that_the_broker_was_emptied_and_opened_again_puts_back_what_it_holds(bench: Bench) -> None:
    bench.worker("busy")
    task, tag = begun(bench, 8)
    bench.broker.empty()
    until(lambda: bench.deliveries.message(tag) is not None, "the delivery is reinstated", 60)
    once(bench, task)
    assert not bench.seen("lost")


@pytest.fixture
def held(own_bench: Bench) -> str:
    """A delivery that somebody holds who is gone."""
    tag = new_tag(QUEUE)
    own_bench.deliveries.reinstate({tag: '{"headers": {"id": "held"}}'}, 1)
    return tag


def test_nothing_is_restored_by_a_sweep_after_a_gap(own_bench: Bench, held: str) -> None:
    """Whoever could not renew because the broker was away gets half a lease's time."""
    deliveries, client = own_bench.deliveries, own_bench.broker.client
    opening = own_bench.gate.state().opening
    client.hset(keys.BROKER_STATE, mapping={"seen": 1, "watch": 1})
    found = deliveries.sweep(600, opening)
    assert found.ended == []
    assert found.next_ms is not None
    assert 0 < found.next_ms <= 300
    until(lambda: deliveries.sweep(600, opening).ended == [held], "half a lease later")


def test_nothing_is_restored_by_a_sweep_when_the_clock_was_put_back(own_bench: Bench, held: str) -> None:
    deliveries, client = own_bench.deliveries, own_bench.broker.client
    opening = own_bench.gate.state().opening
    future = int(time.time() * 1000) + 3_600_000
    client.hset(keys.BROKER_STATE, mapping={"seen": future, "watch": 1})
    assert deliveries.sweep(600, opening).ended == []
    until(lambda: deliveries.sweep(600, opening).ended == [held], "half a lease later")

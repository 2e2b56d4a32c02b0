"""A task runs once, on whoever takes it, for as long as it takes; and again only if that process has died."""

from __future__ import annotations

import os
import signal
import time

import pytest
from transport_parts import LEASE_SECONDS, QUEUE, Bench, queue_key, wire
from waiting import until

from torch_tasks import keys
from torch_tasks.transport.deliveries import list_of


def begun(bench: Bench, seconds: float) -> tuple[str, str]:
    """A task that has begun, and the tag of its delivery."""
    task = bench.send("work", seconds)
    return task, bench.await_seen("begin", task)[0]["tag"]


def test_the_task_of_a_killed_worker_begins_elsewhere_when_its_lease_ends_and_not_before(bench: Bench) -> None:
    victim = bench.worker("victim")
    task, tag = begun(bench, 60)
    bench.worker("heir")
    victim.kill()
    ends = bench.leases()[tag]
    first, second = bench.await_seen("begin", task, count=2)
    assert second["at"] >= ends
    assert second["pid"] != first["pid"]
    assert second["tag"] != tag
    assert (first["losses"], first["redelivered"]) == (0, False)
    assert (second["losses"], second["redelivered"]) == (1, True)


def test_a_task_of_several_lease_times_runs_once(bench: Bench) -> None:
    bench.worker("one")
    bench.worker("other")
    task, _ = begun(bench, LEASE_SECONDS * 3)
    bench.await_seen("end", task)
    bench.await_settled()
    assert len(bench.seen("begin", task)) == 1


def test_a_task_whose_workers_connections_are_cut_goes_on_and_is_acknowledged(bench: Bench) -> None:
    bench.worker("one")
    bench.worker("other")
    task, tag = begun(bench, LEASE_SECONDS * 2)
    for _ in range(3):
        bench.cut_connections()
        assert tag in bench.leases()
        time.sleep(LEASE_SECONDS / 4)  # the next cut hits the new connections
    bench.await_seen("end", task)
    bench.await_settled()
    assert len(bench.seen("begin", task)) == 1


def test_a_frozen_worker_is_told_that_its_lease_is_lost_and_its_late_ack_touches_nothing(bench: Bench) -> None:
    bench.worker("one")
    bench.worker("other")
    task, tag = begun(bench, LEASE_SECONDS * 3)
    frozen = bench.seen("begin", task)[0]["pid"]
    os.kill(frozen, signal.SIGSTOP)
    _, second = bench.await_seen("begin", task, count=2)
    os.kill(frozen, signal.SIGCONT)
    assert bench.await_seen("lost", task)[0]["tag"] == tag
    ended = bench.await_seen("end", task)[0]
    assert ended["tag"] == tag
    probe = bench.send("look")  # the former holder has room again only when it has settled the old one
    until(lambda: bench.seen("look", probe), "the former holder takes the next task", 60)
    assert second["tag"] in bench.leases()
    bench.await_seen("end", task, count=2)
    bench.await_settled()
    assert len(bench.seen("begin", task)) == 2
    assert len(bench.seen("lost")) == 1


def test_a_lost_delivery_counts_until_its_run_has_ended(bench: Bench) -> None:
    frozen = bench.worker("frozen")
    task, tag = begun(bench, LEASE_SECONDS * 3)
    os.kill(frozen.process.pid, signal.SIGSTOP)
    until(lambda: bench.deliveries.put_back(tag, only_ended=True) == "back", "the lease ends", 60)
    bench.broker.client.delete(queue_key())
    os.kill(frozen.process.pid, signal.SIGCONT)
    bench.await_seen("lost", task)
    second = bench.send("work", 0)
    end, begin = bench.await_seen("end", task)[0], bench.await_seen("begin", second)[0]
    assert begin["at"] >= end["at"]


def test_who_stops_puts_back_what_it_holds_and_nothing_is_taken_for_lost(bench: Bench) -> None:
    worker = bench.worker("leaving", "-c", "2", "--prefetch-multiplier", "4")
    tasks = [bench.send("work", 3.0) for _ in range(8)]
    until(lambda: len(bench.leases()) == 8 and len(bench.seen("begin")) == 2, "all are taken, two begin")
    worker.kill("SIGTERM")
    waiting = bench.deliveries.waiting(QUEUE)
    assert not bench.leases()
    assert all("torch-deliveries" not in message for message in waiting)
    assert {wire(message)["headers"]["id"] for message in waiting} == set(tasks) - {e["id"] for e in bench.seen("end")}


@pytest.mark.parametrize("pool", ["threads", "prefork", "solo"])
def test_every_pool_of_celerys_can_use_it(bench: Bench, pool: str) -> None:
    bench.worker("pool", "-P", pool, "-c", "2")
    tasks = [bench.send("work", 0.01) for _ in range(40)]
    bench.await_seen("end", count=40)
    bench.await_settled()
    assert sorted(line["id"] for line in bench.seen("begin")) == sorted(tasks)


def test_who_has_asked_the_workers_asks_again_although_its_connections_were_cut_meanwhile(bench: Bench) -> None:
    bench.worker("one")
    for _ in range(3):
        until(lambda: bench.app.control.ping(["one@bench"], timeout=5, limit=1), "it answers")
        bench.cut_connections()


def test_what_a_worker_holds_counts_against_its_limit_over_a_new_connection(bench: Bench) -> None:
    bench.worker("two", "-c", "2")
    first, second = bench.send("work", LEASE_SECONDS * 2), bench.send("work", LEASE_SECONDS * 2)
    bench.await_seen("begin", count=2)
    bench.cut_connections()
    third = bench.send("work", 0)
    bench.await_seen("begin", third)
    ended = min(line["at"] for task in (first, second) for line in bench.seen("end", task))
    assert bench.seen("begin", third)[0]["at"] >= ended
    bench.await_seen("end", count=3)
    bench.await_settled()
    assert len(bench.seen("begin")) == 3


def test_a_prefetched_task_is_not_run_twice_by_a_lost_connection(bench: Bench) -> None:
    bench.worker("greedy", "-c", "1", "--prefetch-multiplier", "5")
    tasks = [bench.send("work", seconds) for seconds in (4, 0.1, 0.1, 0.1, 0.1)]
    until(lambda: len(bench.leases()) == 5 and bench.seen("begin"), "all five are taken, one begins")
    bench.cut_connections()
    bench.worker("other")
    bench.await_seen("end", count=5)
    bench.await_settled()
    assert sorted(line["id"] for line in bench.seen("begin")) == sorted(tasks)


def test_tasks_with_a_countdown_come_once_over_a_lost_connection(bench: Bench) -> None:
    bench.worker("patient")
    sent = time.time() * 1000
    tasks = [bench.send("work", 0, countdown=LEASE_SECONDS * 2) for _ in range(5)]
    until(lambda: len(bench.leases()) == 5, "all five wait in the worker")
    bench.cut_connections()
    bench.await_seen("end", count=5)
    bench.await_settled()
    assert sorted(line["id"] for line in bench.seen("begin")) == sorted(tasks)
    assert min(line["at"] for line in bench.seen("begin")) >= sent + LEASE_SECONDS * 2000 - 50


def test_a_task_that_kills_its_worker_goes_to_the_dead_letters_and_can_be_brought_back(bench: Bench) -> None:
    task = bench.send("crash")
    sweeper = bench.worker("sweeper", "-Q", "nothing", delivery_limit=3)
    for life in range(3):
        until(lambda: bench.deliveries.waiting(QUEUE), "it is back in its queue", 60)
        bench.worker(f"victim{life}", ready=False, delivery_limit=3).process.wait(60)
    told = bench.await_seen("buried", task)
    assert len(bench.seen("begin", task)) == 3
    assert told[0]["pid"] == sweeper.process.pid
    assert [told[0]["message"]] == [*bench.dead_letters().values()]
    bench.await_settled()
    assert bench.deliveries.replay(task, "other", 3)
    assert bench.dead_letters() == {}
    [message] = bench.deliveries.waiting("other")
    assert "torch-deliveries" not in message
    assert bench.broker.client.llen(list_of("other", 3)) == 1


def test_a_task_can_be_moved_by_its_holder_and_the_later_ack_touches_nothing(bench: Bench) -> None:
    bench.worker("here")
    first = bench.send("end_by", "move", "there", 3)
    assert bench.await_seen("move", first)[0] | {"at": 0, "pid": 0} == {
        "what": "move", "id": first, "at": 0, "pid": 0, "done": True, "again": False, "holder": True,
    }  # fmt: skip
    [message] = bench.deliveries.waiting("there")
    assert wire(message)["headers"]["id"] == first
    until(lambda: not bench.leases(), "nothing is held")
    assert bench.deliveries.waiting("there") == [message]
    assert "torch-deliveries" not in message


def test_a_parked_task_comes_back_at_its_time_though_who_parked_it_has_died(bench: Bench) -> None:
    parker = bench.worker("parker")
    message = {"headers": {"id": "later"}, "properties": {"delivery_info": {}}}
    task = bench.send("end_by", "park", "later", 6, 4000, '{"headers": {"id": "later"}, "properties": {}}')
    parked = bench.await_seen("park", task)[0]
    assert parked["done"]
    parker.kill()
    [tag] = bench.leases()
    assert tag.startswith("parked:")
    assert wire(str(bench.deliveries.message(tag)))["headers"] == message["headers"]
    bench.worker("other", "-Q", "nothing")
    until(lambda: bench.deliveries.waiting("later"), "it comes back", 60)
    assert time.time() * 1000 >= bench.seen("begin", task)[0]["at"] + 4000
    assert bench.deliveries.waiting("later") == ['{"headers": {"id": "later"}, "properties": {}}']
    assert not bench.broker.client.exists(keys.LEASES, keys.DELIVERIES)


def test_who_parks_wakes_up_itself_when_the_time_has_come(bench: Bench) -> None:
    bench.worker("parker", lease_seconds=60)
    task = bench.send("end_by", "park", QUEUE, 6, 500, None)
    first, second = bench.await_seen("begin", task, count=2)  # not only at the next of the sweeps, after five seconds
    assert second["at"] - first["at"] >= 500
    assert second["tag"] != first["tag"]

"""Queues over the leased transport: order, wake-up, and all that Celery and Flower do with them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from flower.utils.broker import Broker as FlowersBroker
from kombu import Producer
from transport_app import OPTIONS
from transport_parts import QUEUE, STEP, Bench, queue_key, wire
from waiting import until

from torch_tasks import keys
from torch_tasks.transport.claiming import CLAIM, ClaimedMessage, ClaimRequest
from torch_tasks.transport.deliveries import BELL_LENGTH, FIRST_FINDER_MS, new_tag

pytestmark = pytest.mark.usefixtures("unsigned")

SLEEPY = {"polling_interval": 100}
"""A worker that waits for as long as this must be woken, or its test fails."""


@pytest.fixture
def claim(bench: Bench) -> Callable[..., ClaimedMessage | None]:
    """Takes a message as a worker would."""
    client = redis.Redis.from_url(bench.broker.url, protocol=2)
    identity = bench.gate.state().identity

    def take(*queues: str, lease_seconds: float = 3.0, server: str = identity) -> ClaimedMessage | None:
        asked = ClaimRequest.of(
            queues, OPTIONS["priority_steps"], server=server, lease_seconds=lease_seconds, limit_bytes=10**6
        )
        return asked.taken(CLAIM(client, **asked.values))

    return take


def order(bench: Bench, count: int) -> list[str]:
    """The ids of the tasks in the order in which they were begun."""
    return [line["id"] for line in bench.await_seen("begin", count=count)]


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_urgent_task_overtakes_twenty_low_ones_and_equals_come_in_order(bench: Bench) -> None:
    low = [bench.send("work", priority=9) for _ in range(20)]
    urgent = bench.send("work", priority=0)
    bench.worker("only")
    assert order(bench, 21) == [urgent, *low]


def test_every_tenth_task_is_a_low_one_that_was_passed_by(bench: Bench) -> None:
    low = [bench.send("work", priority=9) for _ in range(3)]
    high = [bench.send("work", priority=3) for _ in range(30)]
    bench.worker("only")
    expected = [*high[:9], low[0], *high[9:18], low[1], *high[18:27], low[2], *high[27:]]
    assert order(bench, 33) == expected


def test_no_low_task_counts_as_passed_by_that_was_not_there(bench: Bench) -> None:
    high = [bench.send("work", priority=3) for _ in range(12)]
    bench.worker("only")
    assert order(bench, 12) == high
    gate = bench.send("work", 1.0, priority=3)
    bench.await_seen("begin", gate)
    low, urgent = bench.send("work", priority=9), bench.send("work", priority=0)
    assert order(bench, 15)[13:] == [urgent, low]


def test_queues_of_one_priority_take_turns_and_a_higher_one_of_any_queue_comes_first(bench: Bench) -> None:
    first = [bench.send("work", queue="a") for _ in range(4)]
    second = [bench.send("work", queue="b") for _ in range(4)]
    high = bench.send("work", queue="b", priority=3)
    bench.worker("only", "-Q", "a,b")
    begun = order(bench, 9)
    assert begun[0] == high
    assert [task in first for task in begun[1:]] == [True, False] * 4
    assert [task for task in begun if task in first] == first
    assert [task for task in begun if task in second] == second


# ── waking up ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_task_and_a_new_queue_are_seen_at_once(bench: Bench) -> None:
    bench.worker("sleepy", **SLEEPY)
    bench.await_seen("end", bench.send("work"))
    until(bench.waiting, "it waits")
    bench.await_seen("end", bench.send("work"))
    waiting = bench.send("work", queue="new")
    bench.app.control.add_consumer("new", reply=True, timeout=10, destination=["sleepy@bench"])
    bench.await_seen("end", waiting)
    bench.await_seen("end", bench.send("work", queue="new"))
    bench.app.control.cancel_consumer("new", reply=True, timeout=10, destination=["sleepy@bench"])
    bench.await_seen("end", bench.send("work"))
    bench.send("work", queue="new")
    bench.await_seen("end", bench.send("work"))
    assert len(bench.deliveries.waiting("new")) == 1


def test_what_goes_back_wakes_whoever_waits(bench: Bench) -> None:
    bench.worker("first", **SLEEPY)
    task = bench.send("work", 60)
    bench.await_seen("begin", task)
    before = bench.waiting()
    bench.worker("second", **SLEEPY)
    until(lambda: bench.waiting() > before, "it waits")
    bench.workers[0].kill()
    bench.await_seen("begin", task, count=2)


def test_a_message_of_a_producer_that_rings_no_bell_is_found_when_the_wait_ends(bench: Bench) -> None:
    bench.worker("waiting", polling_interval=1)
    stock = Celery("stock", broker=bench.broker.celery_url, set_as_current=False)
    stock.conf.update(broker_transport="kombu.transport.redis:Transport")
    with stock.pool.acquire(block=True) as connection:
        task = stock.send_task("work", queue=QUEUE, priority=6, connection=connection).id
    stock.close()
    bench.await_seen("end", task)


def test_bells_do_not_pile_up(bench: Bench) -> None:
    client = bench.broker.client
    with bench.app.pool.acquire(block=True) as connection, connection.Producer() as producer, producer.batch(500):
        for number in range(BELL_LENGTH + 500):
            bench.app.send_task("work", (), queue=QUEUE, priority=9, task_id=f"t{number}", producer=producer)
    assert client.llen(queue_key(9)) == BELL_LENGTH + 500
    assert client.llen(keys.bell(QUEUE)) == BELL_LENGTH
    assert 0 < client.pttl(keys.bell(QUEUE)) <= 60_000
    client.ltrim(queue_key(9), 0, 2)
    bench.worker("only")
    bench.await_seen("end", count=3)
    until(lambda: not client.exists(keys.bell(QUEUE)), "an empty queue has no bell")
    bench.await_seen("end", bench.send("work"), 1)


def test_an_idle_worker_asks_the_broker_little(bench: Bench) -> None:
    """Counted as the broker does, with what its scripts do; the worker's own events and control are off."""
    client = bench.broker.client
    bench.worker("idle", "--without-heartbeat", "-Q", "a,b,c", lease_seconds=8.0)
    bench.await_seen("end", bench.send("work", queue="a"))
    time.sleep(2)
    seconds = 20.0

    def commands() -> int:
        counts = client.info("commandstats")
        return sum(int(stats["calls"]) for name, stats in counts.items() if not name.startswith("cmdstat_info"))

    before = commands()
    time.sleep(seconds)
    assert (commands() - before) / seconds < 1.5


def test_channels_share_a_connection_and_none_suffers_when_another_is_closed(bench: Bench) -> None:
    def connections() -> int:
        return int(bench.broker.client.info("clients")["connected_clients"])

    with bench.app.connection() as connection:
        first, *others = channels = [connection.channel() for _ in range(5)]
        before = connections()
        for number, channel in enumerate(channels):
            Producer(channel).publish(number, routing_key=QUEUE)
        assert connections() <= before + 1
        first.close()
        assert [channel.basic_get(QUEUE, no_ack=True).payload for channel in others] == [0, 1, 2, 3]
        assert connections() <= before + 1


# ── what Celery and Flower do ────────────────────────────────────────────────────────────────────────────────────


def test_workers_answer_while_they_work(bench: Bench) -> None:
    bench.worker("busy")
    bench.worker("other", "-Q", "other")
    task = bench.send("work", 5)
    bench.await_seen("begin", task)
    everybody = bench.app.control.inspect(timeout=2)
    assert sorted(everybody.ping() or {}) == ["busy@bench", "other@bench"]
    one = bench.app.control.inspect(["busy@bench"], timeout=20)
    assert [found["id"] for found in (one.active() or {})["busy@bench"]] == [task]
    assert (one.stats() or {})["busy@bench"]["prefetch_count"] == 1
    revoked = bench.send("work", queue="other", countdown=1)
    bench.app.control.revoke(revoked)
    bench.await_seen("end", task)
    until(lambda: not bench.leases(), "the revoked one is settled", 30)
    assert not bench.seen("begin", revoked)


def test_flower_sees_the_queues_and_purge_empties_them(bench: Bench) -> None:
    for priority in (0, 6, 6, 9):
        bench.send("work", priority=priority)
    options = {"priority_steps": OPTIONS["priority_steps"]}
    flower = FlowersBroker(bench.broker.celery_url, broker_options=options)
    # Flower cannot name a user on a Unix socket; Torch has it log in as its processes do.
    flower.redis.connection_pool.connection_kwargs["username"] = urlsplit(bench.broker.url).username

    async def length() -> int:
        [queue] = await flower.queues([QUEUE])
        return int(queue["messages"])

    assert asyncio.run(length()) == 4
    assert bench.app.control.purge() == 4
    assert asyncio.run(length()) == 0


def test_many_are_published_at_once(bench: Bench) -> None:
    bench.worker("sleepy", "-Q", f"{QUEUE},other", **SLEEPY)
    bench.await_seen("end", bench.send("work"))
    ids = [f"t{number}" for number in range(30)]
    with bench.app.pool.acquire(block=True) as connection, connection.Producer() as producer, producer.batch(7):
        for number, name in enumerate(ids):
            queue = (QUEUE, "other")[number % 2]
            bench.app.send_task("work", (), queue=queue, priority=6, task_id=name, producer=producer)
    bench.await_seen("end", count=31)
    assert sorted(line["id"] for line in bench.seen("begin"))[-30:] == sorted(ids)


def test_a_message_can_be_taken_at_once_and_put_back_or_acknowledged(bench: Bench) -> None:
    task = bench.send("work")
    bench.program(f"""
        assert channel.basic_get("nothing") is None
        first = channel.basic_get("{QUEUE}")
        assert first.headers["id"] == "{task}"
        assert channel.keeper.held() == {{first.delivery_tag}}
        assert channel.basic_get("{QUEUE}") is None
        first.requeue()
        assert not channel.keeper.held()
        second = channel.basic_get("{QUEUE}")
        assert second.delivery_tag != first.delivery_tag
        second.ack()
    """)
    bench.await_settled()


def test_what_a_closed_channel_did_not_settle_goes_back_in_order(bench: Bench) -> None:
    tasks = [bench.send("work") for _ in range(4)]
    bench.program(f"""
        taken = [channel.basic_get("{QUEUE}") for _ in range(3)]
        assert [message.headers["id"] for message in taken] == {tasks[:3]}
    """)
    assert [wire(message)["headers"]["id"] for message in bench.deliveries.waiting(QUEUE)] == tasks
    assert not bench.leases()


def test_a_program_that_ends_without_a_word_puts_back_what_it_took(bench: Bench) -> None:
    task = bench.send("work")
    bench.program(f"""
        taken = channel.basic_get("{QUEUE}")
        raise SystemExit(0)
    """)
    assert [wire(message)["headers"]["id"] for message in bench.deliveries.waiting(QUEUE)] == [task]


def test_a_consumer_without_a_loop_of_its_own_waits_no_longer_than_it_was_told(bench: Bench) -> None:
    bench.program("""
        import queue, time
        simple = connection.SimpleQueue("simple")
        begun = time.monotonic()
        try:
            simple.get(timeout=0.5)
        except queue.Empty:
            assert 0.4 < time.monotonic() - begun < 4
        simple.put({"a": 1})
        message = simple.get(timeout=20)
        assert message.payload == {"a": 1}
        assert channel.keeper.held() == {message.delivery_tag}
        message.ack()
        assert not channel.keeper.held()
    """)


@pytest.mark.parametrize("message", ["no JSON", "[]", '{"properties": 3}', '{"headers": {"id": "odd"}}'])
def test_a_message_that_nobody_can_read_is_buried_and_the_next_one_comes(bench: Bench, message: str) -> None:
    bench.deliveries.put(QUEUE, message, STEP)
    task = bench.send("work")
    bench.worker("only")
    bench.await_seen("end", task)
    bench.await_settled()
    assert [*bench.dead_letters().values()] == [message]
    assert bench.deliveries.forget_dead_letter(next(iter(bench.dead_letters())))
    assert bench.dead_letters() == {}


def test_a_message_that_its_consumer_chokes_on_is_buried_in_the_end(bench: Bench) -> None:
    task = bench.send("work")
    [message] = bench.deliveries.waiting(QUEUE)
    odd = wire(message)
    del odd["headers"]["id"]
    bench.broker.client.delete(queue_key())
    bench.deliveries.put(QUEUE, json.dumps(odd), STEP)
    bench.worker("only", delivery_limit=3)
    until(lambda: bench.dead_letters(), "it is buried", 60)
    bench.await_seen("end", bench.send("work"))
    assert not bench.seen("begin", task)


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_sweepers_restore_a_delivery_once(bench: Bench, claim: Callable[..., ClaimedMessage | None]) -> None:
    deliveries = bench.deliveries
    for number in range(50):
        deliveries.put(QUEUE, json.dumps({"headers": {"id": str(number)}}), STEP)
    taken = [claim(QUEUE, lease_seconds=0.001) for _ in range(50)]
    tags = [one.tag for one in taken if one]
    assert len(tags) == 50
    time.sleep(0.01)
    outcomes: list[str] = []

    def restore() -> None:
        outcomes.extend(bench.deliveries.put_back(tag, only_ended=True, limit=10) for tag in tags)

    threads = [threading.Thread(target=restore) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["back"] * 50 + ["gone"] * 150
    assert len(deliveries.waiting(QUEUE)) == 50


def test_a_lease_that_has_ended_is_left_to_who_was_told_first_for_a_moment(
    bench: Bench, claim: Callable[..., ClaimedMessage | None]
) -> None:
    opening = bench.gate.state().opening

    def hold() -> str:
        bench.deliveries.put(QUEUE, json.dumps({"headers": {"id": "1"}}), STEP)
        taken = claim(QUEUE, lease_seconds=0.001)
        assert taken
        return taken.tag

    watched_before = int(time.time() * 1000) - 10_000
    bench.broker.client.hset(keys.BROKER_STATE, mapping={"watch": watched_before, "seen": watched_before + 9_900})
    first = hold()
    until(lambda: bench.deliveries.sweep(3000, opening).ended == [first], "the first is told")
    again = bench.deliveries.sweep(3000, opening)
    assert again.ended == []
    assert again.next_ms is not None
    assert 0 < again.next_ms <= FIRST_FINDER_MS
    second = hold()  # what ends later is no business of the one before
    until(lambda: bench.deliveries.sweep(3000, opening).ended == [second], "the second is told", FIRST_FINDER_MS / 2000)
    until(lambda: set(bench.deliveries.sweep(3000, opening).ended) == {first, second}, "nobody restored them")


def test_losses_are_counted_in_the_message_and_nothing_else_of_it_changes(
    bench: Bench, claim: Callable[..., ClaimedMessage | None]
) -> None:
    original = '{"body": "{\\"torch-deliveries\\":7,}", "properties": {}, "headers": {"id": "é✓"}}'
    bench.deliveries.put(QUEUE, original, STEP)
    for losses in (1, 2):
        taken = claim(QUEUE)
        assert taken
        assert bench.deliveries.put_back(taken.tag, limit=3) == "back"
        assert bench.deliveries.waiting(QUEUE) == [f'{{"torch-deliveries":{losses},{original[1:]}']
    taken = claim(QUEUE)
    assert taken
    assert bench.deliveries.put_back(taken.tag, limit=3) == "poison"
    assert bench.deliveries.requeue(taken.tag)
    taken = claim(QUEUE)
    assert taken
    assert bench.deliveries.bury(taken.tag, "é✓")
    assert bench.deliveries.replay("é✓", QUEUE, STEP)
    assert bench.deliveries.waiting(QUEUE) == [original]


def test_a_tag_that_is_gone_touches_nothing(bench: Bench, claim: Callable[..., ClaimedMessage | None]) -> None:
    deliveries = bench.deliveries
    deliveries.put(QUEUE, "{}", STEP)
    old = claim(QUEUE)
    assert old
    assert deliveries.requeue(old.tag)
    new = claim(QUEUE)
    assert new
    for nothing in (
        deliveries.settle(old.tag),
        deliveries.requeue(old.tag),
        deliveries.move(old.tag, "other", 0, "{}"),
        deliveries.park(old.tag, "other", 0, 0),
        deliveries.bury(old.tag, "id"),
        deliveries.message(old.tag),
        deliveries.replay("id", "other", 0),
        deliveries.forget_dead_letter("id"),
    ):
        assert not nothing
    assert deliveries.renew([old.tag, new.tag], 3000, bench.gate.state().opening) == [old.tag]
    assert deliveries.message(new.tag) == "{}"
    assert list(bench.leases()) == [new.tag]


def test_an_abandoned_delivery_can_be_moved_by_anybody(
    bench: Bench, claim: Callable[..., ClaimedMessage | None]
) -> None:
    bench.deliveries.put(QUEUE, "{}", STEP)
    taken = claim(QUEUE, lease_seconds=0.001)
    assert taken
    assert bench.deliveries.move(taken.tag, "torch.agent.next-1", 3, "{}")
    assert bench.deliveries.waiting("torch.agent.next-1") == ["{}"]
    assert not bench.leases()


def test_nobody_takes_from_a_broker_that_is_not_the_known_one(
    bench: Bench, claim: Callable[..., ClaimedMessage | None]
) -> None:
    bench.deliveries.put(QUEUE, "{}", STEP)
    assert claim(QUEUE, server="another") is None
    bench.broker.client.delete(keys.BROKER_STATE)
    assert claim(QUEUE) is None
    assert bench.deliveries.waiting(QUEUE) == ["{}"]


def test_a_forgotten_delivery_is_reinstated_and_a_known_one_left_as_it_is(bench: Bench) -> None:
    known, forgotten = new_tag(QUEUE), new_tag(QUEUE)
    bench.deliveries.reinstate({known: "{1}"}, 1)
    bench.deliveries.reinstate({known: "{2}", forgotten: "{3}"}, 60_000)
    assert [bench.deliveries.message(tag) for tag in (known, forgotten)] == ["{1}", "{3}"]
    assert set(bench.leases()) == {known, forgotten}

"""Two beats while everything dies: each slot of each check-in arrives once.

``TORCH_TEST_LONG=1`` has it last for minutes, ``TORCH_TEST_SEED`` has other things happen.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import redis
from beats import BeatMachine, checkin, fires, registered
from clients import client_of
from nodes import ProcessNode
from waiting import until

from chaos.broker import Broker
from torch_tasks.beat.journal import Journal
from torch_tasks.errors import BrokerUnreachable, StaleWriter
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import At, Checkin, CheckinState, Every, Misfire, SlotOutcome, derived_id

LONG = os.environ.get("TORCH_TEST_LONG") == "1"
STORM_SECONDS = 300.0 if LONG else 20.0
REPEATED, ONCE = (10, 500) if LONG else (5, 60)
AGENT = "developer-1"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 3 * STORM_SECONDS)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that comes back at the same address."""
    broker = Broker(tmp_path / "broker", os.environ)
    broker.start()
    with client_of(broker, tmp_path / "client"):  # type: ignore[arg-type]
        yield broker
    broker.end()


@pytest.fixture
def machine(broker: Broker) -> Iterator[BeatMachine]:
    machine = BeatMachine(broker)  # type: ignore[arg-type]
    yield machine
    machine.close()


class Storm:
    """What happens to two beats, their broker, and the node worker that delivers."""

    def __init__(self, machine: BeatMachine, broker: Broker, seed: int) -> None:
        self._broker = broker
        self._dice = random.Random(seed)
        room = {"TORCH_INBOX_LIMIT": "1000000"}
        self._node = machine.start("node", "worker", "--node", **room)
        self._beats = [machine.beat(f"beat-{number}") for number in (1, 2)]
        self._faults: list[Callable[[], object]] = [
            lambda: self._kill(self._dice.choice(self._beats)),
            lambda: self._stop(self._dice.choice(self._beats)),
            self._kill_broker,
            self._empty_broker,
            lambda: self._kill(self._node),
        ]

    def strike(self) -> None:
        """One fault after the other, each kind at least once."""
        deadline = time.monotonic() + STORM_SECONDS
        rounds = 0
        while time.monotonic() < deadline or not rounds:
            for fault in self._dice.sample(self._faults, len(self._faults)):
                time.sleep(self._dice.uniform(0.5, 2.0))
                fault()
            rounds += 1

    def _kill(self, process: ProcessNode) -> None:
        process.kill()
        time.sleep(self._dice.uniform(0, 2))
        process.start()

    def _stop(self, beat: ProcessNode) -> None:
        beat.process.send_signal(signal.SIGSTOP)
        time.sleep(self._dice.uniform(1, 5))  # the lease is 2 s
        beat.process.send_signal(signal.SIGCONT)

    def _kill_broker(self) -> None:
        self._broker.end()
        time.sleep(self._dice.uniform(0, 1))
        self._broker.start()

    def _empty_broker(self) -> None:
        time.sleep(1)  # the journals get the latest changes meanwhile
        self._broker.end()
        self._broker.forget()
        self._broker.start()


@pytest.mark.parametrize("seed", [int(os.environ.get("TORCH_TEST_SEED", "11"))])
def test_each_slot_arrives_once_whatever_dies(broker: Broker, machine: BeatMachine, seed: int) -> None:
    stop = threading.Event()
    threading.Thread(target=_live, args=(stop,), daemon=True).start()
    storm = Storm(machine, broker, seed)
    store, dice = fleet().checkins, random.Random(seed)
    start = store.now() + timedelta(seconds=5)
    ends = start + timedelta(seconds=STORM_SECONDS)
    every = {"schedule": Every(seconds=1, start=start), "ends": ends, "misfire": Misfire.ALL}
    each = [checkin(when="now", **every) for _ in range(REPEATED)]
    moments = [start + timedelta(seconds=dice.uniform(0, STORM_SECONDS)) for _ in range(ONCE)]
    once = [checkin(schedule=At(at=moment), when="now") for moment in moments]
    asked = [*each, *once]
    store.add_all(asked)
    for file in (machine.folder / name / "beat" for name in ("beat-1", "beat-2")):
        until(lambda file=file: _journalled(file) > len(asked), "every beat knows all of them", 60)
    storm.strike()

    def is_over() -> bool:
        try:
            there = store.records()
            return len(there) == len(asked) and all(one.state is CheckinState.ENDED for one in there)
        except (BrokerUnreachable, OSError):
            return False

    until(is_over, "all have come up", 60)
    slots = [(one, slot) for one in asked for slot in _slots(one, start)]
    expected = Counter(derived_id(one.id, slot, AGENT) for one, slot in slots)

    def arrived() -> Counter[str]:
        return Counter(entry.message_id for entry in fleet().inboxes.waiting(AGENT))

    with contextlib.suppress(AssertionError):
        until(lambda: arrived() == expected, "all have arrived", 60)
    stop.set()
    names = {derived_id(one.id, slot, AGENT): f"{one.id} {slot}" for one, slot in slots}
    lost, more = expected - arrived(), arrived() - expected
    assert [names[one] for one in lost] == []
    assert [names.get(one, one) for one in more] == []
    for one in each:
        sent = [fire for fire in fires(one) if fire.outcome in (SlotOutcome.SENT, SlotOutcome.FIRED)]
        assert [fire.slot for fire in sent] == _slots(one, start)[-len(sent) :]
        assert store.get(one.id).runs == len(_slots(one, start))


def _journalled(folder: Path) -> int:
    """How many entries the beat with this state folder remembers."""
    return sum(len(accounts) for file in folder.glob("*.sqlite") for accounts in Journal(file).accounts())


def _live(stop: threading.Event) -> None:
    """What an agent's worker does, whatever the broker does."""
    info = registered(AGENT)
    while not stop.wait(0.5):
        with contextlib.suppress(BrokerUnreachable, redis.RedisError, StaleWriter):
            fleet().registry.heartbeat(info)


def _slots(asked: Checkin, start: datetime) -> list[datetime]:
    """When it was to come up."""
    found, slot = [], asked.slot_after(start - timedelta(seconds=1))
    while slot:
        found.append(slot)
        slot = asked.slot_after(slot)
    return found

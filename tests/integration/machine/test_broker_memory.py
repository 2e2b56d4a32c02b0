"""A broker whose memory is used up: who enqueues is told by name, and what was accepted stays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
from clients import client_of
from fleet import broker_of_this_machine
from nodes import Broker
from waiting import until

from torch_tasks import Torch
from torch_tasks.broker.connection import connect
from torch_tasks.broker.memory import FULL, LOOK_SECONDS, NEAR, memory_of
from torch_tasks.errors import BrokerFull
from torch_tasks.monitoring import SystemMonitor

JUNK = "x" * (1 << 18)


@pytest.fixture
def small_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """This machine's own, with little memory."""
    monkeypatch.setenv("TORCH_BROKER_MEMORY", "32M")
    with broker_of_this_machine(monkeypatch, keeps_every_write=True) as broker:
        yield broker


@pytest.fixture
def torch(small_broker: Broker, tmp_path: Path) -> Iterator[Torch]:
    with client_of(small_broker, tmp_path / "state") as torch:
        yield torch


def fill(broker: Broker, share: float) -> None:
    """Put junk into the broker until so much of its memory is used, and a little more, as buffers come and go."""
    number = 0
    while memory_of(broker.client).share < share + 0.06:
        broker.client.set(f"junk:{number}", JUNK)
        number += 1


def refused(torch: Torch, full: Broker | None = None) -> bool:
    """Whether a task is refused, as each process sees a moment after the broker is ``full``."""
    if full:
        fill(full, FULL)  # again, if buffers that were full have gone
    try:
        torch.enqueue("true")
    except BrokerFull:
        return True
    return False


def doctor() -> str:
    argv = [sys.executable, "-m", "torch_tasks.cli", "doctor"]
    return forked.run(argv).stdout


def test_a_broker_without_room_refuses_by_name_and_keeps_what_it_accepted(small_broker: Broker, torch: Torch) -> None:
    accepted = torch.enqueue("echo first")
    assert "memory:" in doctor()

    fill(small_broker, NEAR)
    until(lambda: "nearly used up" in doctor(), "the doctor says so")
    assert any("nearly used up" in reason for reason in SystemMonitor().get_system_health().reasons)
    assert torch.enqueue("true").status == "queued"

    until(lambda: refused(torch, small_broker), "tasks are refused", LOOK_SECONDS + 5)
    with pytest.raises(BrokerFull, match=r"takes no new tasks: its memory is used up, \d+ MiB of 32 MiB") as caught:
        torch.enqueue("echo never", id="refused-1")
    assert caught.value.exit_code == 4
    assert not list(small_broker.client.scan_iter("*refused-1*")), "nothing of it is left"
    waits = torch.enqueue("echo later", id="waits-1", spool=True)
    assert waits.spooled
    assert torch.task(accepted.id).status == "queued"

    small_broker.client.delete(*small_broker.client.scan_iter("junk:*"))
    until(lambda: not refused(torch), "tasks are accepted", LOOK_SECONDS + 5)
    # Asking for any task sends what waits, once this process sees that there is room.
    until(lambda: torch.task(accepted.id).status and not torch.task("waits-1").spooled, "it is sent")
    assert torch.task("waits-1").status == "queued"


def test_a_broker_that_is_full_says_so_itself(small_broker: Broker, torch: Torch) -> None:
    accepted = torch.enqueue("echo first")
    client = connect()
    with pytest.raises(BrokerFull, match="takes nothing new: its memory is used up"):
        [client.set(f"junk:{number}", JUNK) for number in range(200)]
    assert torch.task(accepted.id).status == "queued"
    assert len(list(client.scan_iter("junk:*"))) > 10, "nothing is dropped"

"""What is said of the broker's memory, and when."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import redis

from torch_tasks.broker.connection import unreachable
from torch_tasks.broker.memory import Memory, MemoryLog
from torch_tasks.errors import BrokerFull
from torch_tasks.model.broker_address import BrokerAddress

LIMIT = 100 << 20


@pytest.mark.parametrize(
    ("used", "limit", "policy", "said"),
    [
        (0, 0, "noeviction", ""),
        (LIMIT, 0, "allkeys-lru", ""),  # without a limit nothing is dropped
        (LIMIT * 79 // 100, LIMIT, "noeviction", ""),
        (
            LIMIT * 80 // 100,
            LIMIT,
            "noeviction",
            "nearly used up, 80 MiB of 100 MiB (80%); at 90% it",
        ),
        (LIMIT * 90 // 100, LIMIT, "noeviction", "takes no new tasks: its memory is used up, 90 MiB of 100 MiB (90%)"),
        (0, LIMIT, "allkeys-lru", "drops what it was given when its memory is used up (maxmemory-policy allkeys-lru)"),
    ],
)
def test_a_person_is_told_what_to_know(used: int, limit: int, policy: str, said: str) -> None:
    warning = Memory(used=used, limit=limit, policy=policy).warning
    assert said in warning
    assert bool(said) == bool(warning)


def test_the_log_tells_changes_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = MemoryLog()
    for percent in (10, 85, 95, 85, 40, 30, 81):
        log.note(Memory(used=LIMIT * percent // 100, limit=LIMIT))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert "nearly used up" in caplog.messages[0]
    assert caplog.messages[1] == "the broker's memory is not short any more: 40 MiB of 100 MiB (40%)"


def test_a_refusal_of_the_broker_itself_has_the_same_name() -> None:
    own = BrokerAddress.of_socket(Path("/state/broker/sock"), "torch-tasks up")
    said = unreachable(own, redis.OutOfMemoryError("OOM command not allowed"))
    assert isinstance(said, BrokerFull)
    assert "takes nothing new: its memory is used up. What was accepted stays and goes on." in str(said)

"""Which messages of this machine have to be sent before another one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from torch_tasks.model.message import Message
from torch_tasks.store.outbox import ON_ITS_WAY_SECONDS, Outbox


def said_by(sender: str) -> Message:
    return Message(sender=sender, target="dev-1", message="look")


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


def test_what_another_sender_has_on_its_way_is_left_to_it(outbox: Outbox) -> None:
    outbox.keep(said_by("qa-1"))
    file = outbox.keep(said_by("pm-1"))
    assert outbox.is_next(file, "pm-1")


def test_what_the_same_sender_said_before_comes_before(outbox: Outbox) -> None:
    earlier = outbox.keep(said_by("pm-1"))
    file = outbox.keep(said_by("pm-1"))
    assert not outbox.is_next(file, "pm-1")
    assert outbox.is_next(earlier, "pm-1")
    outbox.accepted(earlier)
    assert outbox.is_next(file, "pm-1")


def test_what_has_waited_for_a_while_comes_before_whoever_said_it(outbox: Outbox) -> None:
    file = outbox.keep(said_by("qa-1"))
    waited = time.time_ns() - int((ON_ITS_WAY_SECONDS + 1) * 1e9)
    file.rename(file.with_name(f"{waited:020d}-{file.name.split('-', 1)[1]}"))
    assert not outbox.is_next(outbox.keep(said_by("pm-1")), "pm-1")

"""Which messages of this machine must be sent before another one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from torch_tasks.model.message import Message
from torch_tasks.store.outbox import ON_ITS_WAY_SECONDS, Outbox


def message_of(sender: str) -> Message:
    return Message(sender=sender, target="dev-1", message="look")


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


def test_a_new_message_of_another_sender_is_left_to_its_own_process(outbox: Outbox) -> None:
    outbox.keep(message_of("qa-1"))
    file = outbox.keep(message_of("pm-1"))
    assert outbox.is_next(file, "pm-1")


def test_an_earlier_message_of_the_same_sender_comes_first(outbox: Outbox) -> None:
    earlier = outbox.keep(message_of("pm-1"))
    file = outbox.keep(message_of("pm-1"))
    assert not outbox.is_next(file, "pm-1")
    assert outbox.is_next(earlier, "pm-1")
    outbox.accepted(earlier)
    assert outbox.is_next(file, "pm-1")


def test_a_message_that_has_waited_comes_first_whoever_sent_it(outbox: Outbox) -> None:
    file = outbox.keep(message_of("qa-1"))
    waited = time.time_ns() - int((ON_ITS_WAY_SECONDS + 1) * 1e9)
    file.rename(file.with_name(f"{waited:020d}-{file.name.split('-', 1)[1]}"))
    assert not outbox.is_next(outbox.keep(message_of("pm-1")), "pm-1")


def test_what_lay_in_a_former_brokers_outbox_is_sent_in_its_order(outbox: Outbox, tmp_path: Path) -> None:
    former = Outbox(tmp_path / "former")
    sent, first = former.keep(message_of("pm-1")), former.keep(message_of("pm-1"))
    former.accepted(sent)
    name = outbox.name if outbox.keep(message_of("pm-1")) else ""
    outbox.adopt(tmp_path / "former")
    assert (former.waiting(), former.unsettled()) == (0, 0)
    assert (outbox.waiting(), outbox.unsettled()) == (2, 1)
    order: list[str] = []
    outbox.flush(lambda message: order.append(message.id))
    assert order[0] == first.stem.split("-", 2)[2]
    assert outbox.name != name


def test_an_outbox_without_a_former_one_stays_as_the_broker_knows_it(outbox: Outbox, tmp_path: Path) -> None:
    outbox.keep(message_of("pm-1"))
    name = outbox.name
    outbox.adopt(tmp_path / "former")
    assert outbox.name == name

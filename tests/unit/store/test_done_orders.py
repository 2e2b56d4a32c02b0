"""What a node worker did is known there whatever becomes of the broker, and elsewhere as a node signed it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from torch_tasks import keys
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.store.done_orders import DoneOrders
from torch_tasks.transport.envelope import SIGNED_SECONDS


class Kept(dict[str, str]):
    """What lies on the broker."""

    is_away = False

    def get(self, name: str, default: Any = None) -> Any:
        if self.is_away:
            raise BrokerUnreachable("gone")
        return super().get(name, default)

    def set(self, name: str, text: str, ex: int) -> None:
        if self.is_away:
            raise BrokerUnreachable("gone")
        assert ex == SIGNED_SECONDS
        self[name] = text


pytestmark = pytest.mark.usefixtures("enforced")


@pytest.fixture
def broker() -> Kept:
    return Kept()


def _of(broker: Any, file: Path) -> DoneOrders:
    """A process of the machine with this file."""
    return DoneOrders(broker, file)


def test_what_was_done_here_is_known_here_and_elsewhere(broker: Kept, tmp_path: Path) -> None:
    here, there = tmp_path / "here" / "done", tmp_path / "there"
    assert _of(broker, here).find("t1") is None
    _of(broker, here).note("t1", {"ready": True})
    for file in (here, there):
        done = _of(broker, file).find("t1")
        assert done
        assert done.outcome == {"ready": True}
    assert here.stat().st_mode & 0o777 == 0o600


def test_what_returned_nothing_was_done_all_the_same(broker: Kept, tmp_path: Path) -> None:
    orders = _of(broker, tmp_path / "here")
    orders.note("t1", None)
    done = orders.find("t1")
    assert done
    assert done.outcome is None


@pytest.mark.parametrize("happens", ["deleted", "away"])
def test_the_machine_that_did_it_needs_no_broker(happens: str, broker: Kept, tmp_path: Path) -> None:
    _of(broker, tmp_path / "here").note("t1", "")
    broker.clear()
    broker.is_away = happens == "away"
    assert _of(broker, tmp_path / "here").find("t1")
    assert _of(broker, tmp_path / "there").find("t1") is None


def test_what_is_noted_while_the_broker_is_away_is_known_here(broker: Kept, tmp_path: Path) -> None:
    broker.is_away = True
    _of(broker, tmp_path / "here").note("t1", "")
    assert _of(broker, tmp_path / "here").find("t1")


@pytest.mark.parametrize("text", ["", "no JSON", '{"outcome": 1}'])
def test_nobody_without_a_key_says_that_something_was_done(text: str, broker: Kept, tmp_path: Path) -> None:
    broker[keys.done_order("t1")] = text
    assert _of(broker, tmp_path / "here").find("t1") is None


def test_that_one_was_done_does_not_say_so_of_another(broker: Kept, tmp_path: Path) -> None:
    _of(broker, tmp_path / "here").note("t1", "")
    broker[keys.done_order("t2")] = broker[keys.done_order("t1")]
    assert _of(broker, tmp_path / "there").find("t2") is None


def test_a_torn_line_and_what_is_too_old_are_dropped(broker: Kept, tmp_path: Path) -> None:
    file = tmp_path / "here"
    old = {"task": "old", "at": time.time() - SIGNED_SECONDS - 1, "outcome": ""}
    new = {"task": "new", "at": time.time(), "outcome": ""}
    file.write_text(f'{json.dumps(old)}\n{json.dumps(new)}\n{{"task": "torn"')
    orders = _of(broker, file)
    assert [bool(orders.find(name)) for name in ("old", "new", "torn")] == [False, True, False]
    assert file.read_text() == json.dumps(new) + "\n"

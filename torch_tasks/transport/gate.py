"""Is this the broker that everybody knows, or was it restarted, and forgot?

Every server process has an identity of its own. The one with which the fleet was last reconciled is kept on the
broker; while the server's identity is another, the gate is closed: nobody takes a message and nobody restores one.
Everybody who keeps deliveries comes, says what the broker may have forgotten, and after a short while the gate opens.
"""

from __future__ import annotations

from typing import NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.reconciler import identity_of
from torch_tasks.broker.scripts import Scripts

SCRIPTS = Scripts(__file__)


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


class GateAnswer(NamedTuple):
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

    def state(self) -> GateState:
        """Who answers, and whom the fleet knows."""
        server, epoch, since = map(_text, self._client.hmget(keys.BROKER_STATE, ["server", "epoch", "since"]))
        return GateState(identity_of(self._client), server or None, int(epoch or 0), f"{server}@{since}")

    def enter(self, identity: str, recovery_ms: int, epoch: int, *, busy: bool = False) -> GateAnswer:
        """Wait at the gate, to be asked again and again until it is open.

        It opens ``recovery_ms`` after the first who came, and not while anybody is ``busy``: has more to say. The epoch
        never goes backwards: the largest that anybody knew counts.
        """
        terms = {"identity": identity, "recovery_ms": recovery_ms, "epoch": epoch, "busy": busy}
        is_open, number, since = SCRIPTS["enter"](self._client, broker=keys.BROKER_STATE, **terms)
        return GateAnswer(bool(is_open), int(number), f"{identity}@{since}")

    def open_new(self) -> bool:
        """Open the gate of a broker that never had any data."""
        return bool(SCRIPTS["open_new"](self._client, broker=keys.BROKER_STATE, identity=identity_of(self._client)))


def _text(value: object) -> str:
    return "" if value is None else str(value)

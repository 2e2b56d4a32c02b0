"""The gate of a restarted broker: closed until every process has put back what the broker may have forgotten.

Every server process has an identity of its own. The broker keeps the one with which the fleet was last reconciled;
while the server has another, no process takes or restores a message. Soon after the first process came, it opens.
"""

from __future__ import annotations

from typing import NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.reconciler import identity_of
from torch_tasks.broker.scripts import Scripts

SCRIPTS = Scripts(__file__)


class GateState(NamedTuple):
    #: The server process that answers.
    identity: str
    #: The one with which the fleet was last reconciled, if ever.
    server: str | None
    #: How often that happened.
    epoch: int
    #: Identifies the last time that the gate was opened.
    opening: str

    @property
    def open(self) -> bool:
        return self.identity == self.server


class GateAnswer(NamedTuple):
    """The gate's answer to a process that waits at it."""

    open: bool
    #: The largest that any process knew.
    epoch: int
    #: As in :class:`GateState`, once it is open.
    opening: str


class Gate:
    """The gate of one broker; the client must decode responses."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def state(self) -> GateState:
        """The server process that answers, and the one that the fleet knows."""
        found = self._client.hmget(keys.BROKER_STATE, ["server", "epoch", "since"])
        server, epoch, since = (str(value or "") for value in found)
        return GateState(identity_of(self._client), server or None, int(epoch or 0), f"{server}@{since}")

    def enter(self, identity: str, recovery_ms: int, epoch: int, *, busy: bool = False) -> GateAnswer:
        """Wait at the gate; call this again and again until it is open.

        It opens ``recovery_ms`` after the first process came, and not while one is ``busy`` putting back. The largest
        epoch that any process knew counts.
        """
        terms = {"identity": identity, "recovery_ms": recovery_ms, "epoch": epoch, "busy": busy}
        is_open, number, since = SCRIPTS["enter"](self._client, broker=keys.BROKER_STATE, **terms)
        return GateAnswer(bool(is_open), int(number), f"{identity}@{since}")

    def open_new(self) -> bool:
        """Open the gate of a broker that never had any data."""
        return bool(SCRIPTS["open_new"](self._client, broker=keys.BROKER_STATE, identity=identity_of(self._client)))

"""The gate of a restarted broker: closed until every process has put back what the broker may have forgotten.

Every server process has an identity of its own. The broker keeps the one with which the fleet was last reconciled;
while the server has another, no process takes or restores a message. Soon after the first process came, it opens.

While a backup is being restored, it stays closed, also if that is interrupted: until it is repeated.
"""

from __future__ import annotations

from typing import NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.reconciler import identity_in, identity_of
from torch_tasks.broker.scripts import Scripts

SCRIPTS = Scripts(__file__)
SERVER = "server"
"""The field with the server process that the fleet knows."""
LASTING = ("epoch", "restoring", "restored_made_at", "restored_at", "restored_place")
"""What the broker keeps of the gate that is about the fleet's data, on whichever server it is."""


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


class Restored(NamedTuple):
    """From which backup this broker has its data."""

    made_at: float
    """When that was begun, in seconds; what the fleet did later is not in it."""
    at: float
    """When it was restored."""
    place: str
    """Where the broker was then, as the machine named it that made the backup."""


class Gate:
    """The gate of one broker; the client must decode responses."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def state(self) -> GateState:
        """The server process that answers, and the one that the fleet knows."""
        return self.state_beside(keys.BROKER_STATE)[0]

    def state_beside(self, place: str) -> tuple[GateState, dict[str, str]]:
        """:meth:`state`, and what this hash holds on the server process that answers."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(keys.BROKER_STATE, ["server", "epoch", "since"])
            pipe.info("server")
            pipe.hgetall(place)
            found, info, fields = pipe.execute()
        server, epoch, since = (str(value or "") for value in found)
        identity = identity_in(info, self._client)
        return GateState(identity, server or None, int(epoch or 0), f"{server}@{since}"), fields

    def enter(self, identity: str, recovery_ms: int, epoch: int, *, busy: bool = False) -> GateAnswer:
        """Wait at the gate; call this again and again until it is open.

        It opens ``recovery_ms`` after the first process came, and not while one is ``busy`` putting back. The largest
        epoch that any process knew counts.
        """
        terms = {"identity": identity, "recovery_ms": recovery_ms, "epoch": epoch, "busy": busy}
        places = {"broker": keys.BROKER_STATE, "reconciled": keys.RECONCILED}
        is_open, number, since = SCRIPTS["enter"](self._client, **places, **terms)
        return GateAnswer(bool(is_open), int(number), f"{identity}@{since}")

    # ── restoring a backup ───────────────────────────────────────────────────────────────────────────────────────

    def being_restored(self) -> str | None:
        """The backup that is being restored here, or whose restoring was interrupted."""
        found = self._client.hget(keys.BROKER_STATE, "restoring")
        return str(found) if found else None

    def close(self, backup: str, epoch: int) -> None:
        """Close it until :meth:`restored`; ``epoch`` is the one in the backup, and the larger one counts."""
        known = int(self._client.hget(keys.BROKER_STATE, "epoch") or 0)
        with self._client.pipeline() as pipe:
            pipe.hset(keys.BROKER_STATE, mapping={"restoring": backup, "epoch": max(known, epoch)})
            pipe.hdel(keys.BROKER_STATE, "server", "pending", "until", "brought")
            pipe.delete(keys.RECONCILED)
            pipe.execute()

    def restored(self, made_at: float, place: str) -> None:
        """Have all that know something put it back, and the gate open after that."""
        seconds, micros = self._client.time()
        with self._client.pipeline() as pipe:
            pipe.hset(keys.BROKER_STATE, "restored_at", repr(seconds + micros / 1e6))
            pipe.hset(keys.BROKER_STATE, "restored_made_at", repr(made_at))
            pipe.hset(keys.BROKER_STATE, "restored_place", place)
            pipe.hdel(keys.BROKER_STATE, "restoring")
            pipe.delete(keys.RECONCILED)
            pipe.execute()

    def last_restored(self) -> Restored | None:
        """From which backup the broker has what it has; None if from none."""
        names = ("restored_made_at", "restored_at", "restored_place")
        made_at, at, place = self._client.hmget(keys.BROKER_STATE, names)
        return Restored(float(made_at), float(at), str(place)) if made_at and at else None

    def open_new(self) -> bool:
        """Open the gate of a broker that never had any data."""
        return bool(SCRIPTS["open_new"](self._client, broker=keys.BROKER_STATE, identity=identity_of(self._client)))

"""Puts back what a broker forgot. Each source's name is noted on the broker with the identity of its server process.

A restarted broker has another identity, whatever it remembers; one that lost its data while it ran has lost the notes,
too. So a source must put back what it knows exactly when its note does not hold the identity of the server process.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import redis

from torch_tasks import keys
from torch_tasks.model import metrics
from torch_tasks.system.tally import tally

_RUN_ID = re.compile(r"^(?:run_id|master_replid):(\w+)", re.MULTILINE)


class Source(Protocol):
    """Something of this process or machine that knows what the broker may have forgotten.

    Holds and the roster are no sources: they are merged and compared at each heartbeat.
    """

    @property
    def name(self) -> str:
        """Its name on the broker; no other source of the fleet has it."""

    def put_back(self) -> bool:
        """Write to the broker what it forgot, and keep what is later there. False if a part has to wait.

        It may be repeated, and run in several processes at once.
        """


def identity_of(client: redis.Redis) -> str:
    """The identity of the server process that answers."""
    return identity_in(client.info("server"), client)


def identity_in(info: Any, client: redis.Redis) -> str:
    """:func:`identity_of` from the broker's answer to ``INFO server``."""
    return str(info.get("run_id") or client.info("replication")["master_replid"])


class Reconciler:
    """Has sources put back what a broker forgot, once for each of its processes; the client must decode responses."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def is_known(self, source: Source) -> bool:
        """Whether the broker still has what the source knew when it was last reconciled."""
        return self.server_that_knows(source) is not None

    def server_that_knows(self, source: Source) -> str | None:
        """The server process that answers, if it has what the source knew when it was last reconciled.

        Only what is read between two answers that are the same is what that server has: between two different ones
        the broker may have been empty for a while.
        """
        noted, identity = self._noted(source)
        return identity if noted == identity else None

    def _noted(self, source: Source) -> tuple[str | None, str]:
        """The server process that was noted for the source, and the one that answers."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hget(keys.RECONCILED, source.name)
            pipe.info("server")
            noted, info = pipe.execute()
        return noted, identity_in(info, self._client)

    def reconcile(self, source: Source, *, always: bool = False) -> None:
        """Have the source put back what it knows, if the broker may have forgotten it, or ``always``."""
        noted, identity = self._noted(source)  # if it is another one by the end, the note does not count
        known = not always and noted == identity
        if not known and source.put_back():
            self._client.hset(keys.RECONCILED, source.name, identity)
            tally().count(metrics.RECONCILIATIONS)


def greeting(note: Callable[[str], None]) -> Callable[[Any], None]:
    """A first step for connections: log in, and ``note`` the identity of the server process that answers."""

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

"""Has the broker forgotten? Every process of it has an identity of its own; what was put back is noted under that.

A broker that is restarted has another identity, whatever it remembers: nothing, all, or how things stood some time ago.
One that lost its data while it ran has lost the notes, too. So a source of knowledge has to put back what it knows
just when the note under its name does not bear the identity of the process that answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import redis

from torch_tasks import keys

_RUN_ID = re.compile(r"^(?:run_id|master_replid):(\w+)", re.MULTILINE)


class Source(Protocol):
    """Something of this process or machine that knows what the broker may have forgotten.

    What needs no note is no source: holds are merged, and the roster compared, at each heartbeat.
    """

    @property
    def name(self) -> str:
        """What the broker notes it under; no other source of the fleet has this name."""

    def put_back(self) -> bool:
        """Have the broker know again what it forgot; what it knows later stays. False if a part has to wait.

        It may be repeated, and run in several processes at once.
        """


def identity_of(client: redis.Redis) -> str:
    """The process that answers at the broker's address."""
    info: dict[str, Any] = client.info("server")
    return str(info.get("run_id") or client.info("replication")["master_replid"])


class Reconciler:
    """Has sources put back what one broker forgot: once for each of its processes."""

    def __init__(self, client: redis.Redis) -> None:
        """The client must decode responses."""
        self._client = client

    def is_known(self, source: Source) -> bool:
        """The broker knows what the source knew when it was last reconciled."""
        return bool(self._client.hget(keys.RECONCILED, source.name) == identity_of(self._client))

    def reconcile(self, source: Source, *, always: bool = False) -> None:
        """Have the source put back what it knows, if the broker may have forgotten it, or ``always``."""
        identity = identity_of(self._client)  # if it is another one by the end, the note does not count
        known = not always and self._client.hget(keys.RECONCILED, source.name) == identity
        if not known and source.put_back():
            self._client.hset(keys.RECONCILED, source.name, identity)


def greeting(note: Callable[[str], None]) -> Callable[[Any], None]:
    """What a connection does first: log in, and ``note`` the identity of the broker's process that answers."""

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

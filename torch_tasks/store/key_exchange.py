"""What lies on the broker of the fleet's keys: what its root says of them, and who asks the root for a certificate.

Nothing of it is secret, and none is believed for lying there: each text is signed, or sealed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.broker.scripts import Scripts
from torch_tasks.signing.fleet_keys import LONGEST_FLEET_KEYS

SCRIPTS = Scripts(__file__)
ANSWER_SECONDS = 600
"""How long an answer lies there, and a request."""
_LONGEST = 8192
_AT_ONCE = 100


class KeyExchange:
    """The requests for certificates, each with the name under which its answer is looked for."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def fleet_keys(self) -> str:
        """What the broker has of what the fleet's root says; empty if nothing."""
        return str(self._client.getrange(keys.FLEET_KEYS, 0, LONGEST_FLEET_KEYS))

    def replace_fleet_keys(self, former: str, text: str) -> None:
        """Put this there, if the former text is still there."""
        SCRIPTS["replace"](self._client, fleet_keys=keys.FLEET_KEYS, former=former, text=text)

    def ask(self, place: str, name: str, text: str) -> None:
        with self._client.pipeline() as pipe:
            pipe.hset(place, name, text)
            pipe.expire(place, ANSWER_SECONDS)
            pipe.execute()

    def requests(self, place: str) -> Iterator[tuple[str, str]]:
        """Some of the requests that wait, which are taken by this; what is no request is dropped."""
        found: Any = self._client.hscan(place, count=_AT_ONCE)[1]
        for name, text in list(found.items())[:_AT_ONCE]:
            if self._client.hdel(place, name) and len(name) + len(text) <= _LONGEST:
                yield str(name), str(text)

    def answer(self, name: str, text: str) -> None:
        self._client.set(keys.key_answer(name), text, ex=ANSWER_SECONDS)

    def answer_to(self, name: str) -> str | None:
        found = self._client.getrange(keys.key_answer(name), 0, LONGEST_FLEET_KEYS)
        return str(found) or None

    def forget(self, place: str, name: str) -> None:
        """Take back a request, and its answer."""
        self._client.hdel(place, name)
        self._client.delete(keys.key_answer(name))

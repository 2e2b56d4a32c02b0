"""The connections on which this process publishes and asks: one pool for all its channels, however many kombu makes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import redis

from torch_tasks.transport.gate import greeting


class Pool(redis.ConnectionPool):
    """Knows which server process answers."""

    def __init__(self, **parameters: Any) -> None:
        #: The one that answered when a connection was made last, be it one of this pool's or a consumer's own.
        self.server = ""
        # kombu's limit is meant for one channel; who waits for nothing has one connection per thread at most.
        super().__init__(**{**parameters, "max_connections": None, "redis_connect_func": greeting(self.note)})

    def note(self, server: str) -> None:
        """This server process answers."""
        self.server = server


_pools: dict[str, Pool] = {}
_lock = threading.Lock()


def pool_for(parameters: Mapping[str, Any]) -> Pool:
    """The pool for these parameters, made if need be. Like all of redis-py's, it begins anew in a forked child."""
    where = repr(sorted(parameters.items()))
    with _lock:
        if where not in _pools:
            _pools[where] = Pool(**parameters)
        return _pools[where]

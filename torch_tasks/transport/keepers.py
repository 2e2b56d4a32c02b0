"""The keepers of this process: one for each broker that it takes messages from."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from typing import Any

from torch_tasks.transport.keeper import Keeper, Terms

_keepers: dict[tuple[object, ...], Keeper] = {}
_lock = threading.Lock()


def keeper_for(parameters: Mapping[str, Any], terms: Terms) -> Keeper:
    """The keeper for the broker at these connection parameters, made if need be."""
    where = tuple(parameters.get(name) for name in ("host", "port", "path", "db", "username"))
    with _lock:
        if where not in _keepers:
            _keepers[where] = Keeper(parameters, terms)
        return _keepers[where]


def keepers() -> list[Keeper]:
    """All of them."""
    return list(_keepers.values())


def keeper() -> Keeper | None:
    """The first of them, if this process takes messages at all."""
    return next(iter(_keepers.values()), None)


def keeper_of(tag: str) -> Keeper | None:
    """The one that holds the delivery."""
    return next((each for each in keepers() if each.message(tag) is not None), None)


def _begin_anew() -> None:
    """A forked child holds nothing."""
    global _lock
    _keepers.clear()
    _lock = threading.Lock()


def _leave() -> None:
    for each in keepers():
        each.leave()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(_leave)

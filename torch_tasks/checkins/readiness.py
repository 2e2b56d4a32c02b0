"""Whether check-ins fire: a beat that leads, and a node worker that brings them to their receivers."""

from __future__ import annotations

import time
from typing import NamedTuple

from torch_tasks import keys
from torch_tasks.fleet import Fleet

_POLL_SECONDS = 0.1


class Readiness(NamedTuple):
    """What check-ins need in order to fire."""

    leads: str | None
    """The beat that leads."""
    nodes: tuple[str, ...]
    """The machines with a live node worker."""

    @property
    def lacks(self) -> list[str]:
        """What is missing, and what to do about it."""
        lacks = []
        if self.leads is None:
            lacks.append("no beat runs: nothing fires until one does ('torch-tasks up', 'celery -A torch_tasks beat')")
        if not self.nodes:
            lacks.append("no node worker runs: what fires waits until one does ('torch-tasks up', 'torch-tasks node')")
        return lacks


def readiness(of: Fleet, patience: float = 0.0) -> Readiness:
    """The readiness within ``patience`` seconds, in which another beat may succeed one that died."""
    deadline = time.monotonic() + patience
    while True:
        leader = of.client.get(keys.BEAT_LEADER)
        found = Readiness(str(leader) if leader else None, tuple(of.nodes.online()))
        if not found.lacks or time.monotonic() >= deadline:
            return found
        time.sleep(_POLL_SECONDS)

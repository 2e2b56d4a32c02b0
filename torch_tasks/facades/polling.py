"""Waiting for longer than one request does."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch_tasks.operations.operation import WAIT_SECONDS


def turns(timeout: float | None) -> Iterator[float]:
    """How long each request waits, one after the other until the ``timeout`` is over; there is always a first one."""
    deadline = None if timeout is None else time.monotonic() + timeout
    left = WAIT_SECONDS if timeout is None else timeout
    while True:
        yield min(WAIT_SECONDS, max(0.0, left))
        if deadline is not None and (left := deadline - time.monotonic()) <= 0:
            return

"""Tells others in this process what the keeper learnt, in a thread of its own: nobody slow may delay a lease."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from torch_tasks.errors import BrokerAway
from torch_tasks.system.loops import RETRY_SECONDS, Loop

log = logging.getLogger(__name__)


class Callbacks:
    """Calls back, one after another. What a callback raises is logged."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        # What fails does not keep the next one waiting.
        self._loop = Loop("torch-callbacks", self._do_next, retry_seconds=0.0, longest_retry_seconds=0.0)
        self._started = False

    def tell(self, callbacks: Iterable[Callable[[str, str], object]], first: str, second: str) -> None:
        """Call each of them soon."""
        for callback in list(callbacks):
            self._do(lambda callback=callback: callback(first, second))  # type: ignore[misc]

    def collect(self, callbacks: Iterable[Callable[[], object]], wanted: Callable[[], bool]) -> threading.Event:
        """Call each of them soon, again and again while the broker is away, as long as it is ``wanted``.

        The event is set when all have done what they can.
        """
        done = threading.Event()
        for callback in list(callbacks):
            self._do(lambda callback=callback: _insist(callback, wanted))  # type: ignore[misc]
        self._do(done.set)
        return done

    def _do(self, job: Callable[[], object]) -> None:
        self._jobs.put(job)
        if not self._started:
            self._started = True
            self._loop.start()

    def _do_next(self) -> None:
        self._jobs.get()()


def _insist(callback: Callable[[], object], wanted: Callable[[], bool]) -> None:
    while wanted():
        try:
            callback()
        except BrokerAway as error:
            log.warning("the broker is away again while accounts are put back: %s", error)
            time.sleep(RETRY_SECONDS)
        else:
            return

"""Runs an app's callbacks when leases end or the broker returns, in a thread of their own: none may delay a lease."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from torch_tasks.errors import BrokerAway
from torch_tasks.system.loops import RETRY_SECONDS, Loop

log = logging.getLogger(__name__)


@dataclass
class LeaseListeners:
    """The functions that the keepers of an app call back; each list may grow at any time."""

    on_lost: list[Callable[[str, str], object]] = field(default_factory=list)
    """Called with the tag and the message of a delivery that another process may have by now."""
    on_buried: list[Callable[[str, str], object]] = field(default_factory=list)
    """Called with the id and the message that this process put to the dead letters because it was lost too often."""
    on_return: list[Callable[[], object]] = field(default_factory=list)
    """Called when the broker was restarted or has lost its data, while no process takes messages: to put back what
    only this process knows. A callback that finds the broker away is called again when it is back."""
    on_refused: list[Callable[[str, str], object]] = field(default_factory=list)
    """Called with the queue and the reason when this process refused a message for its signature."""
    _refusals: Callbacks = field(default_factory=lambda: Callbacks())

    def refused(self, queue: str, why: str) -> None:
        self._refusals.run(self.on_refused, queue, why)


class Callbacks:
    """Runs callbacks one after another and logs what they raise."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        # A failed job does not delay the next one.
        self._loop = Loop("torch-callbacks", self._run_next, retry_seconds=0.0, longest_retry_seconds=0.0)
        self._started = False

    def run(self, callbacks: Iterable[Callable[[str, str], object]], first: str, second: str) -> None:
        """Have each of them called soon."""
        for callback in list(callbacks):
            self._enqueue(partial(callback, first, second))

    def run_until_done(self, callbacks: Iterable[Callable[[], object]], wanted: Callable[[], bool]) -> threading.Event:
        """Have each of them called soon, again and again while the broker is away, as long as it is ``wanted``.

        The event is set when all have done what they can.
        """
        done = threading.Event()
        for callback in list(callbacks):
            self._enqueue(partial(_run_until_done, callback, wanted))
        self._enqueue(done.set)
        return done

    def _enqueue(self, job: Callable[[], object]) -> None:
        self._jobs.put(job)
        if not self._started:
            self._started = True
            self._loop.start()

    def _run_next(self) -> None:
        self._jobs.get()()


def _run_until_done(callback: Callable[[], object], wanted: Callable[[], bool]) -> None:
    while wanted():
        try:
            callback()
        except BrokerAway as error:
            log.warning("the broker is away again while this process puts back what it knows: %s", error)
            time.sleep(RETRY_SECONDS)
        else:
            return

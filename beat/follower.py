"""Follows what changes on the broker: wakes beat, and keeps its journal."""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue

from torch_tasks.beat.journal import Journal
from torch_tasks.broker.reconciler import Reconciler
from torch_tasks.errors import StateFolderUnusable
from torch_tasks.settings import Settings
from torch_tasks.store.timetable import Timetable
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_PRUNE_SECONDS = 3600.0


class Follower:
    """A thread that follows the changes. The thread that fires calls :meth:`wait` and :meth:`settle`."""

    def __init__(self, timetable: Timetable, reconciler: Reconciler, journal: Journal, settings: Settings) -> None:
        self._timetable = timetable
        self._reconciler = reconciler
        self._journal = journal
        self._keep_seconds = settings.result_days * 86400
        # A blocking command must end before the connection counts as dead.
        self._wait_ms = min(4000, int(settings.broker_connect_seconds * 800))
        self._news: SimpleQueue[None] = SimpleQueue()
        self._settled = threading.Event()
        self._pruned = -math.inf
        self._loop = Loop("follower", self._follow_and_prune, longest_retry_seconds=1.0)

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        """End the thread; the latest changes are in the journal if the broker is there."""
        self._loop.stop()

    def wait(self, seconds: float) -> None:
        """Return when something has changed, or after so many seconds."""
        with suppress(Empty):
            self._news.get(timeout=max(seconds, 0.0))
            while True:
                self._news.get_nowait()

    def wake(self) -> None:
        """End the wait, or the next one. Takes no lock."""
        self._news.put(None)

    def settle(self) -> None:
        """Put back what the broker forgot; cheap if it has forgotten nothing."""
        try:
            self._reconciler.reconcile(self)
        except StateFolderUnusable as error:
            log.error("cannot read the journal, so what the broker may have forgotten is not put back yet: %s", error)
        else:
            self._settled.set()

    @property
    def name(self) -> str:
        """The journal's name in the broker's notes on who has put back what."""
        return self._journal.name

    def put_back(self) -> bool:
        """Put back the entries and histories that the broker forgot."""
        if not self._journal.position:
            return True
        if self._journal.silence > self._keep_seconds * 0.99 and not self._timetable.is_empty():
            log.warning("the journal is so old that its entries may have been removed since: nothing is put back")
            return True
        count = sum(self._timetable.restore(accounts) for accounts in self._journal.accounts())
        if count:
            log.warning(
                "put back %d entries or their histories, which the broker had forgotten, from the journal", count
            )
        return True

    def _follow_and_prune(self) -> None:
        self._follow()
        if time.monotonic() - self._pruned > _PRUNE_SECONDS:
            self._journal.prune(self._keep_seconds)
            self._pruned = time.monotonic()

    def _follow(self) -> None:
        position = self._journal.position
        changes = self._timetable.changes(position, self._wait_ms) if position else None
        if changes is None:
            self._read_all()
            return
        newest, ids = changes
        if newest == position:
            return
        self.wake()
        self._journal.write(self._timetable.accounts(ids))
        self._journal.mark_followed(newest)

    def _read_all(self) -> None:
        """Copy all entries: the journal is new, or more has changed than the stream of changes holds."""
        begun, newest = time.time(), self._timetable.newest()
        server = self._reconciler.server_that_knows(self)
        if server is None:  # settle() has to put back first what the broker forgot
            self._settled.wait(_RETRY_SECONDS)
            self._settled.clear()
            return
        for ids in self._timetable.ids():
            self._journal.write(self._timetable.accounts(ids))
            self._journal.mark_seen(ids)
        if self._reconciler.server_that_knows(self) == server:
            self._journal.forget_unseen(begun)
            self._journal.mark_followed(newest)
        self.wake()

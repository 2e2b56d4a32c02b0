"""Follows what changes on the broker: wakes beat, and keeps its journal."""

from __future__ import annotations

import logging
import math
import threading
import time

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
    """One thread that follows, and what the thread that fires asks of the journal."""

    def __init__(self, timetable: Timetable, reconciler: Reconciler, journal: Journal, settings: Settings) -> None:
        self._timetable = timetable
        self._reconciler = reconciler
        self._journal = journal
        self._keep_seconds = settings.result_days * 86400
        # A blocking command must end before the connection counts as dead.
        self._wait_ms = min(4000, int(settings.broker_connect_seconds * 800))
        self._wake = threading.Event()
        self._settled = threading.Event()
        self._pruned = -math.inf
        self._loop = Loop("follower", self._follow_and_prune, longest_retry_seconds=1.0)

    def start(self) -> None:
        """Begin to follow."""
        self._loop.start()

    def stop(self) -> None:
        """Leave; what changed last is in the journal if the broker is there."""
        self._loop.stop()

    def wait(self, seconds: float) -> None:
        """Return when something has changed, or after so long."""
        self._wake.wait(max(seconds, 0.0))
        self._wake.clear()

    # ── a broker that has forgotten ──────────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """Have the broker know what the journal knows, if it may have forgotten: next to nothing if it has not."""
        try:
            self._reconciler.reconcile(self)
        except StateFolderUnusable as error:
            log.error("what the broker may have forgotten cannot be looked up: %s", error)
        else:
            self._settled.set()

    @property
    def name(self) -> str:
        """What the broker notes the journal under."""
        return self._journal.name

    def put_back(self) -> bool:
        """Put back what the broker forgot of the entries."""
        self._restore()
        return True

    def _restore(self) -> None:
        if not self._journal.position:
            return
        if self._journal.silence > self._keep_seconds * 0.99 and not self._timetable.is_empty():
            log.warning("the journal is so old that what it holds may have been removed since: nothing is put back")
            return
        count = sum(self._timetable.restore(accounts) for accounts in self._journal.accounts())
        if count:
            log.warning("the broker had forgotten %d entries or what became of them: put back from the journal", count)

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

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
        self._wake.set()
        self._journal.write(self._timetable.accounts(ids))
        self._journal.followed(newest)

    def _read_all(self) -> None:
        """The journal is new, or more has changed than the stream of changes holds."""
        begun, newest = time.time(), self._timetable.newest()
        if not self._reconciler.is_known(self):  # what it forgot is put back first
            self._settled.wait(_RETRY_SECONDS)
            self._settled.clear()
            return
        for ids in self._timetable.ids():
            self._journal.write(self._timetable.accounts(ids))
            self._journal.seen(ids)
        if self._reconciler.is_known(self):
            self._journal.forget_unseen(begun)
            self._journal.followed(newest)
        self._wake.set()

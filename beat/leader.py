"""The lead: of all beats, only the leading one fires."""

from __future__ import annotations

import logging
import os
import time
import uuid

from torch_tasks.store.timetable import Timetable

log = logging.getLogger(__name__)


class LeadLost(Exception):
    """Another beat leads, and it fires what this one was about to fire."""


class LeaderLease:
    """This beat's lease on the lead. No token is given out twice, so a beat that was stalled cannot use its old one."""

    def __init__(self, timetable: Timetable, lease_seconds: float) -> None:
        self._timetable = timetable
        self._lease = lease_seconds
        self._owner = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._renewed = 0.0
        self.token = ""

    @property
    def pause(self) -> float:
        """Seconds between two renewals."""
        return self._lease / 3

    def take(self) -> float:
        """Take or keep the lead; returns 0 if this beat leads, else the seconds until it is worth trying again."""
        begun = time.monotonic()
        token, seconds = self._timetable.lead(self._owner, self.token)
        if token and token != self.token:
            log.info("this beat leads now (%s)", token)
        if self.token and not token:
            self.mark_lost()
        self.token, self._renewed = token, begun
        return 0.0 if token else min(seconds + 0.01, self.pause)

    def keep(self) -> None:
        """Renew the lead if that is due; :class:`LeadLost` if it is over."""
        if time.monotonic() - self._renewed < self.pause:
            return
        begun = time.monotonic()
        token, _ = self._timetable.lead(self._owner, self.token)
        if token != self.token:
            raise LeadLost
        self._renewed = begun

    def mark_renewed(self, moment: float) -> None:
        """Note that a step on the broker renewed the lease at this monotonic moment."""
        self._renewed = moment

    def mark_lost(self) -> None:
        log.warning("this beat leads no more (%s): another one has taken over", self.token)
        self.token = ""

    def resign(self) -> None:
        """Give up the lead, so that another beat can take it at once."""
        if self.token:
            self._timetable.resign(self.token)
            self.token = ""

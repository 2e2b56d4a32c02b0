"""The lead: of all beats, one fires."""

from __future__ import annotations

import logging
import os
import time
import uuid

from torch_tasks.store.timetable import Timetable

log = logging.getLogger(__name__)


class LeadLost(Exception):
    """Another beat leads: what this one was about to fire is the other's to fire."""


class LeaderLease:
    """This beat's hold on the lead.

    It is a lease that the leading beat renews. A token that was held once is never held again, so a beat that was
    stopped and comes back late is told from the one that has succeeded it.
    """

    def __init__(self, timetable: Timetable, lease_seconds: float) -> None:
        self._timetable = timetable
        self._lease = lease_seconds
        self._owner = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._renewed = 0.0
        self.token = ""

    @property
    def pause(self) -> float:
        """How long a beat that leads may be silent."""
        return self._lease / 3

    def take(self) -> float:
        """Take or keep the lead; seconds until it is worth trying again, 0 if this beat leads."""
        begun = time.monotonic()
        token, seconds = self._timetable.lead(self._owner, self.token)
        if token and token != self.token:
            log.info("this beat leads now (%s)", token)
        if self.token and not token:
            self.lost()
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

    def renewed(self, moment: float) -> None:
        """The lead was renewed at this monotonic moment."""
        self._renewed = moment

    def lost(self) -> None:
        """Another one leads."""
        log.warning("this beat leads no more (%s): another one has taken over", self.token)
        self.token = ""

    def resign(self) -> None:
        """Let another one lead at once."""
        if self.token:
            self._timetable.resign(self.token)
            self.token = ""

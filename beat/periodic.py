"""Celery's periodic entries: those of ``beat_schedule``, and the standing ones of every fleet."""

from __future__ import annotations

import copy
import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.beat import ScheduleEntry

from torch_tasks.broker.connection import is_away
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.model.checkin import CheckinState, milliseconds
from torch_tasks.model.task import Priority
from torch_tasks.settings import Settings
from torch_tasks.store.timetable import PERIODIC, Advance, Due, Timetable

log = logging.getLogger(__name__)

_RETRY_SECONDS = 60.0
"""The pause after an entry's own schedule has failed."""


def standing_entries(settings: Settings) -> dict[str, dict[str, Any]]:
    """What the fleet does by itself, at intervals."""
    scale = settings.scale_seconds
    return {
        "torch.scale": {"task": "torch.scale", "schedule": scale, "options": {"expires": max(scale, 10.0)}},
        "torch.housekeeping": {
            "task": "torch.housekeeping",
            "schedule": settings.heartbeat_seconds / 2,
            "options": {"expires": 10.0, "priority": Priority.URGENT.step},
        },
        # Records expire by themselves after `result_days`; their places in the index do not.
        "torch.prune": {"task": "torch.prune", "schedule": 3600.0},
    }


class PeriodicEntries:
    """The periodic entries of this beat's configuration; the broker keeps when each is due, under its name."""

    def __init__(
        self, entries: Mapping[str, ScheduleEntry], timetable: Timetable, clock: Callable[[], datetime]
    ) -> None:
        self._timetable = timetable
        self._clock = clock
        self._entries = {PERIODIC + name: self._by_broker_time(entry) for name, entry in entries.items()}

    def _by_broker_time(self, entry: ScheduleEntry) -> ScheduleEntry:
        zone = entry.app.timezone
        entry.schedule.nowfun = lambda: self._clock().astimezone(zone)
        return entry

    def install(self) -> None:
        """Make the broker's periodic entries exactly these."""
        for entry_id in self._timetable.installed() - self._entries.keys():
            log.info("%s is not in the schedule any more: removed", entry_id)
            self._timetable.uninstall(entry_id)
        for entry_id, entry in self._entries.items():
            words = repr(entry.schedule)
            if self._timetable.install(entry_id, words, self._after(entry, self._clock())):
                log.info("%s: %s", entry_id, words)

    def advance(self, due: Due, fields: Mapping[str, str | None], send: Callable[[ScheduleEntry], Any]) -> Advance:
        """Send the task of a due entry, once however many of its times were missed."""
        entry = self._entries.get(due.id)
        if entry is None:  # of another beat's configuration, until this beat installs its own
            return Advance(due, version=fields["version"] or "")
        slot, now = datetime.fromisoformat(fields["slot"] or ""), self._clock()
        try:
            send(self._under_id(entry, slot))
        except Exception as error:
            cause = error.__context__
            if cause and is_away(cause):
                raise BrokerUnreachable(str(cause)) from error
            log.exception("%s could not be sent", due.id)
        upcoming = self._after(entry, slot)
        if upcoming <= now:
            upcoming = self._after(entry, now)
        version, runs = fields["version"] or "", int(fields["runs"] or 0) + 1
        return Advance(due, version, CheckinState.ACTIVE, upcoming, milliseconds(upcoming), runs)

    def _under_id(self, entry: ScheduleEntry, slot: datetime) -> ScheduleEntry:
        """A copy whose task has the same id however often this slot is sent."""
        task_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{entry.name} {milliseconds(slot)}"))
        sent = copy.copy(entry)
        sent.options = {"task_id": task_id, **entry.options}
        return sent

    def _after(self, entry: ScheduleEntry, last: datetime) -> datetime:
        """When the entry is due next, if it was last due then. Its schedule may be foreign code."""
        try:
            left: timedelta = entry.schedule.remaining_estimate(last.astimezone(entry.app.timezone))
        except Exception:
            log.exception("%s: its schedule fails; trying again in %g s", entry.name, _RETRY_SECONDS)
            left = timedelta(seconds=_RETRY_SECONDS)
        return (self._clock() + left).astimezone(UTC)

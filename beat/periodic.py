"""Celery's periodic entries: those of ``beat_schedule``, and the standing ones that the fleet always has."""

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
"""How soon an entry is looked at again whose own schedule fails."""


def standing_entries(settings: Settings) -> dict[str, dict[str, Any]]:
    """The entries that every beat has: what the fleet does by itself, at intervals."""
    scale = settings.scale_seconds
    return {
        "torch.scale": {"task": "torch.scale", "schedule": scale, "options": {"expires": max(scale, 10.0)}},
        "torch.housekeeping": {
            "task": "torch.housekeeping",
            "schedule": settings.heartbeat_seconds / 2,
            "options": {"expires": 10.0, "priority": Priority.URGENT.step},
        },
        # Records end by themselves after `result_days`; their place in the index does not.
        "torch.prune": {"task": "torch.prune", "schedule": 3600.0},
    }


class PeriodicEntries:
    """The entries of this beat's configuration. When the next is due is on the broker, under the entry's own name."""

    def __init__(
        self, entries: Mapping[str, ScheduleEntry], timetable: Timetable, clock: Callable[[], datetime]
    ) -> None:
        self._timetable = timetable
        self._clock = clock
        self._entries = {PERIODIC + name: self._by_broker_time(entry) for name, entry in entries.items()}

    def _by_broker_time(self, entry: ScheduleEntry) -> ScheduleEntry:
        """The entry, whose schedule asks the broker what time it is."""
        zone = entry.app.timezone
        entry.schedule.nowfun = lambda: self._clock().astimezone(zone)
        return entry

    def install(self) -> None:
        """Have exactly these entries come up."""
        for entry_id in self._timetable.installed() - self._entries.keys():
            log.info("%s stands in the schedule no more: removed", entry_id)
            self._timetable.uninstall(entry_id)
        for entry_id, entry in self._entries.items():
            words = repr(entry.schedule)
            if self._timetable.install(entry_id, words, self._after(entry, self._clock())):
                log.info("%s: %s", entry_id, words)

    def advance(self, due: Due, fields: Mapping[str, str | None], send: Callable[[ScheduleEntry], Any]) -> Advance:
        """Send the task of an entry that is due; one that was missed is sent once."""
        entry = self._entries.get(due.id)
        if entry is None:  # of another beat's configuration: it is removed once this one installs its own
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
        return Advance(
            due,
            version=fields["version"] or "",
            state=CheckinState.ACTIVE,
            slot=upcoming,
            next_ms=milliseconds(upcoming),
            runs=int(fields["runs"] or 0) + 1,
        )

    def _under_id(self, entry: ScheduleEntry, slot: datetime) -> ScheduleEntry:
        """The entry with an id for its task that is the same however often this slot is sent."""
        task_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{entry.name} {milliseconds(slot)}"))
        sent = copy.copy(entry)
        sent.options = {"task_id": task_id, **entry.options}
        return sent

    def _after(self, entry: ScheduleEntry, last: datetime) -> datetime:
        """When it is due again if it was last due then. Its schedule counts from now, and may do as it likes."""
        try:
            left: timedelta = entry.schedule.remaining_estimate(last.astimezone(entry.app.timezone))
        except Exception:
            log.exception("%s: its schedule fails, and is asked again in %g s", entry.name, _RETRY_SECONDS)
            left = timedelta(seconds=_RETRY_SECONDS)
        return (self._clock() + left).astimezone(UTC)

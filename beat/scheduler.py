"""The scheduler of ``celery -A torch_tasks beat``: check-ins, what stands in ``beat_schedule``, what always stands.

All of it is on the broker, whose clock decides when something is due. Any number of beats may run: one leads. What is
due is given to the fleet under ids that derive from the entry and its slot, and only then the entry moves on, in one
step that a beat which leads no more is refused. So a slot is never lost, and what is given twice arrives once.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from celery.beat import ScheduleEntry, Scheduler
from pydantic import ValidationError

from torch_tasks.app import CHECKIN
from torch_tasks.beat.follower import Follower
from torch_tasks.beat.journal import Journal
from torch_tasks.beat.leader import LeaderLease, LeadLost
from torch_tasks.beat.periodic import PeriodicEntries, standing_entries
from torch_tasks.beat.slots import fire_of, plan_slots
from torch_tasks.broker.connection import is_away
from torch_tasks.errors import BrokerAway
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import Checkin, Fire, moment_of
from torch_tasks.store.checkins import record_of
from torch_tasks.store.timetable import Advance, Due, Tick, Timetable

log = logging.getLogger(__name__)

BATCH = 200
"""So many entries are seen to in one step."""
_RETRY_SECONDS = 1.0


class TorchScheduler(Scheduler):
    """Fires what is due, if it leads."""

    def __init__(self, *args: Any, lazy: bool = False, **kwargs: Any) -> None:
        self._settings = fleet().settings
        self._now = datetime.now(UTC)
        self._away = False
        self._timetable = self._open_timetable()
        self._lead = LeaderLease(self._timetable, self._settings.beat_lease_seconds)
        place = re.sub(r"[^\w.-]+", "_", self._settings.broker().place)
        journal = Journal(self._settings.state.beat(place))
        self._follower = Follower(self._timetable, fleet().reconciler, journal, self._settings)
        super().__init__(*args, lazy=lazy, **kwargs)
        self._periodic = PeriodicEntries(self.schedule, self._timetable, lambda: self._now)
        if not lazy:
            self._follower.start()

    def _open_timetable(self) -> Timetable:
        return Timetable(fleet().client, self._settings)

    # ── what Celery asks for ─────────────────────────────────────────────────────────────────────────────────────

    def setup_schedule(self) -> None:
        """The entries of the configuration, those of Celery's own, and those that always stand."""
        for name, entry in self.app.conf.beat_schedule.items():
            try:
                self.update_from_dict({name: entry})
            except Exception:
                log.exception("%r in beat_schedule cannot be used and is left out", name)
        self.install_default_entries(self.schedule)

    def install_default_entries(self, data: Any) -> None:
        """Celery's defaults and ours."""
        super().install_default_entries(data)
        self.update_from_dict(standing_entries(self._settings))

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due and wait until something is, or something changes."""
        try:
            pause = self._turn()
            if self._away:
                log.warning("the broker is back")
            self._away = False
        except Exception as error:
            pause = _RETRY_SECONDS
            if not is_away(error):
                log.exception("a fault in firing; beat goes on")
            elif not self._away:
                log.warning("the broker is away, nothing is fired: %s", error)
                self._away = True
        self._follower.wait(pause)
        return 0.0

    def close(self) -> None:
        """Leave; another beat leads at once."""
        self._follower.stop()
        try:
            self._lead.resign()
        except BrokerAway as error:
            log.warning("the lead was not given up, it ends by itself: %s", error)
        super().close()

    @property
    def info(self) -> str:
        """What Celery prints at the start."""
        return f"    . broker -> {self._settings.broker()}"

    # ── one turn ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self) -> float:
        """Do what is to be done; seconds until there may be something again."""
        self._follower.settle()
        led = bool(self._lead.token)
        if not led and (pause := self._lead.take()):
            return pause
        begun = time.monotonic()
        tick = self._timetable.tick(self._lead.token, BATCH)
        self._now = moment_of(tick.now_ms)
        if not tick.leads:
            self._lead.lost()
            return 0.0
        self._lead.renewed(begun)
        if not led:
            self._periodic.install()
        if not tick.due:
            left = self._lead.pause if tick.next_ms is None else (tick.next_ms - tick.now_ms) / 1000
            return min(left, self._lead.pause, float(self.max_interval))
        try:
            self._fire(tick)
        except LeadLost:
            log.warning("this beat was silent for too long: what it was about to fire is refused")
            self._lead.lost()
        return 0.0

    def _fire(self, tick: Tick) -> None:
        """Give what is due to the fleet, then have the entries move on."""
        entries = dict(zip(tick.due, self._timetable.entries(due.id for due in tick.due), strict=True))
        advances = []
        with self.app.producer_or_acquire() as producer, producer.batch():
            for due, fields in entries.items():
                if not due.periodic and (advance := self._see_to(due, fields, producer)):
                    advances.append(advance)
                self._lead.keep()
        for due, fields in entries.items():
            if due.periodic:
                advances.append(self._periodic.advance(due, fields, self._send_periodic))
                self._lead.keep()
        if advances and not self._timetable.advance(self._lead.token, advances):
            raise LeadLost

    def _see_to(self, due: Due, fields: Mapping[str, str | None], producer: Any) -> Advance | None:
        """Send the fires of one check-in; one that cannot be read is set aside, and the others go on."""
        if not fields["checkin"]:
            log.warning("%s is due, and there is no such check-in", due.id)
            self._timetable.set_aside(due, "")
            return None
        try:
            record = record_of(fields)
            version = str(record.version)
            if due.slot_ms is not None:
                slot = moment_of(due.slot_ms)
                advance = Advance(due, fires=(fire_of(record.checkin, slot, self._now, slot),))
            else:
                next_up = plan_slots(record, self._now, self._settings.misfire_seconds)
                told = (*next_up.fires, *([next_up.skipped] if next_up.skipped else []))
                advance = Advance(due, version, next_up.state, next_up.slot, next_up.next_ms, next_up.runs, told)
        except (ValidationError, ValueError, KeyError, OverflowError) as error:
            log.error("check-in %s cannot be read and is set aside: %s", due.id, error)
            self._timetable.set_aside(due, str(error))
            return None
        self._send(record.checkin, [fire for fire in advance.fires if fire.celery_id], producer)
        return advance

    def _send(self, checkin: Checkin, fires: Sequence[Fire], producer: Any) -> None:
        wire = checkin.model_dump(mode="json")
        for fire in fires:
            words = f"{checkin.target}: {checkin.title} · slot {fire.slot.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
            args = (wire, fire.slot.isoformat(), round(fire.late, 3))
            self.app.send_task(
                CHECKIN,
                args,
                task_id=fire.celery_id,
                queue=checkin.target.queue,
                producer=producer,
                argsrepr=words,
                kwargsrepr="",
                ignore_result=True,
            )

    def _send_periodic(self, entry: ScheduleEntry) -> Any:
        log.debug("sending %s (%s)", entry.name, entry.task)
        return self.apply_async(entry, advance=False)

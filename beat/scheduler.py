"""The scheduler of ``celery -A torch_tasks beat``: check-ins, ``beat_schedule``, and the standing entries.

All entries are on the broker, whose clock decides when one is due. Of any number of beats, one leads. It publishes the
due tasks under ids that derive from the entry and its slot, and only then moves the entries on, in one step that the
broker refuses a beat which leads no more. So a slot is never lost, and one that is published twice arrives once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from torch_tasks.app import CHECKIN
from torch_tasks.beat.follower import Follower
from torch_tasks.beat.heads_keeper import HeadsKeeper
from torch_tasks.beat.journal import Journal
from torch_tasks.beat.leader import LeaderLease, LeadLost
from torch_tasks.beat.periodic import PeriodicEntries, standing_entries
from torch_tasks.beat.slots import fire_of, plan_slots
from torch_tasks.broker.connection import is_away
from torch_tasks.errors import BrokerAway, Unreadable
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.machine.fleet_keys import key_loops
from torch_tasks.model import metrics
from torch_tasks.model.checkin import Checkin, Fire, SlotOutcome, moment_of
from torch_tasks.model.traceparent import HEADER, TraceParent
from torch_tasks.monitoring.pages import PageKeeper, health_pages
from torch_tasks.monitoring.readiness import ReadinessProbe, lacks_of_beat
from torch_tasks.monitoring.service_manager import notice_loops
from torch_tasks.state_folder import StateFolder
from torch_tasks.store.checkins import record_of
from torch_tasks.store.timetable import Advance, Due, Tick, Timetable
from torch_tasks.system.tally import BEAT, keep_tally_of, tally

log = logging.getLogger(__name__)

BATCH = 200
"""The most entries that one step handles."""
_RETRY_SECONDS = 1.0


class TorchScheduler(Scheduler):
    """Fires what is due while this beat leads."""

    def __init__(self, *args: Any, lazy: bool = False, **kwargs: Any) -> None:
        self._settings = fleet().settings
        self._now = datetime.now(UTC)
        self._away = False
        self._is_ending = False
        self._timetable = self._open_timetable()
        self._lead = LeaderLease(self._timetable, self._settings.beat_lease_seconds)
        journal = Journal(self._settings.state.beat(self._settings.broker().file_name))
        self._follower = Follower(self._timetable, fleet().reconciler, journal, self._settings)
        self._loops = [HeadsKeeper(fleet().audit_heads, journal, self._settings).loop]
        readiness = ReadinessProbe(lambda: lacks_of_beat(fleet()))
        if self._settings.metrics:
            self._loops.append(_pages(fleet(), readiness).loop)
        super().__init__(*args, lazy=lazy, **kwargs)
        self._periodic = PeriodicEntries(self.schedule, self._timetable, lambda: self._now)
        if not lazy:
            _begin_tally(self._settings.state)
            self._follower.start()
            self._loops += [*notice_loops(readiness.lacks), *key_loops(fleet())]
            for loop in self._loops:
                loop.start()

    def _open_timetable(self) -> Timetable:
        return Timetable(fleet().client, self._settings)

    def setup_schedule(self) -> None:
        """Read the entries of ``beat_schedule``, and add the default ones."""
        for name, entry in self.app.conf.beat_schedule.items():
            try:
                self.update_from_dict({name: entry})
            except Exception:
                log.exception("%r in beat_schedule cannot be used and is left out", name)
        self.install_default_entries(self.schedule)

    def install_default_entries(self, data: Any) -> None:
        """Add Celery's default entries and the standing ones."""
        super().install_default_entries(data)
        self.update_from_dict(standing_entries(self._settings))

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due; wait until something is due or changes."""
        if self._is_ending:
            raise SystemExit
        try:
            pause = self._turn()
            if self._away:
                log.warning("the broker is back")
            self._away = False
        except Exception as error:
            pause = _RETRY_SECONDS
            if not is_away(error):
                log.exception("an unexpected error while firing; trying again in %g s", pause)
            elif not self._away:
                log.warning("the broker is away; nothing fires until it is back: %s", error)
                self._away = True
        self._follower.wait(pause)
        return 0.0

    def end(self) -> None:
        """Have no further turn begin. Takes no lock."""
        self._is_ending = True
        self._follower.wake()

    def close(self) -> None:
        """End, and let another beat lead at once."""
        self._follower.stop()
        for loop in self._loops:
            loop.stop()
        try:
            self._lead.resign()
        except BrokerAway as error:
            log.warning("could not give up the lead, which now ends with its lease: %s", error)
        super().close()

    @property
    def info(self) -> str:
        return f"    . broker -> {self._settings.broker()}"

    def _turn(self) -> float:
        """Fire one batch if this beat leads; returns the seconds until something may be due."""
        self._follower.settle()
        led = bool(self._lead.token)
        if not led and (pause := self._lead.take()):
            return pause
        begun = time.monotonic()
        tick = self._timetable.tick(self._lead.token, BATCH)
        self._now = moment_of(tick.now_ms)
        if not tick.leads:
            self._lead.mark_lost()
            return 0.0
        self._lead.mark_renewed(begun)
        if not led:
            self._periodic.install()
        if not tick.due:
            left = self._lead.pause if tick.next_ms is None else (tick.next_ms - tick.now_ms) / 1000
            return min(left, self._lead.pause, float(self.max_interval))
        try:
            self._fire(tick)
        except LeadLost:
            log.warning("this beat has lost the lead while firing: the broker refused to move its entries on")
            self._lead.mark_lost()
        return 0.0

    def _fire(self, tick: Tick) -> None:
        """Publish what is due, then move the entries on."""
        entries = dict(zip(tick.due, self._timetable.entries(due.id for due in tick.due), strict=True))
        advances = []
        with self.app.producer_or_acquire() as producer, producer.batch():
            for due, fields in entries.items():
                if not due.periodic and (advance := self._fire_checkin(due, fields, producer)):
                    advances.append(advance)
                self._lead.keep()
        for due, fields in entries.items():
            if due.periodic:
                advances.append(self._periodic.advance(due, fields, self._send_periodic))
                self._lead.keep()
        if advances and not self._timetable.advance(self._lead.token, advances):
            raise LeadLost
        for fire in (fire for advance in advances for fire in advance.fires):
            _count(fire)

    def _fire_checkin(self, due: Due, fields: Mapping[str, str | None], producer: Any) -> Advance | None:
        """Publish the due slots of one check-in; one that cannot be read is set aside."""
        if not fields["checkin"]:
            log.warning("%s is due, but there is no such check-in: removed from the timetable", due.id)
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
                fires = (*next_up.fires, *([next_up.skipped] if next_up.skipped else []))
                advance = Advance(due, version, next_up.state, next_up.slot, next_up.next_ms, next_up.runs, fires)
        except (Unreadable, ValueError, KeyError, OverflowError) as error:
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
                headers={HEADER: str(TraceParent.new(str(fire.celery_id)))},
            )

    def _send_periodic(self, entry: ScheduleEntry) -> Any:
        log.debug("sending %s (%s)", entry.name, entry.task)
        return self.apply_async(entry, advance=False)


def _pages(of: Fleet, readiness: ReadinessProbe) -> PageKeeper:
    """What says whether this beat lives, and whether check-ins fire."""
    return PageKeeper(
        of.settings.metrics_host, of.settings.metrics_beat_port, health_pages(readiness), of.settings.state.beat_address
    )


def _begin_tally(state: StateFolder) -> None:
    keep_tally_of(BEAT, state)
    for metric in (metrics.CHECKINS_FIRED, metrics.CHECKINS_MISSED, metrics.CHECKIN_LATE_SECONDS):
        tally().begin(metric)


def _count(fire: Fire) -> None:
    if fire.outcome is SlotOutcome.SKIPPED:
        tally().count(metrics.CHECKINS_MISSED, fire.count)
    else:
        tally().count(metrics.CHECKINS_FIRED)
        tally().observe(metrics.CHECKIN_LATE_SECONDS, fire.late)

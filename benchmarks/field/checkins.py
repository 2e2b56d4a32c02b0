"""Notes that are due at their seconds while the leading beat is killed: how many come late, never, or twice."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import psutil
from beats import registered

from benchmarks.checkins import beat, empty, leader, redbeat_folder
from benchmarks.field.findings import CHECKINS, NOT_INSTALLED, REDBEAT, TORCH, FieldFinding
from benchmarks.harness import READY_SECONDS, ROOT, Stage, await_true
from benchmarks.measures import percentile
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import At, Checkin, Target, derived_id

PER = 10_000
PER_SECOND = 5
BEFORE_SECONDS = 12.0
SETTLE_SECONDS = 10.0
LATE_SECONDS = 1.0
REDBEAT_LOCK_SECONDS = "5"
AGENT = "noted"
ROOM = {"TORCH_INBOX_LIMIT": "10000"}

Arrivals = list[tuple[int, float]]
"""The numbers of the notes that came, each with its moment."""


def measure(stage: Stage, quick: bool) -> Iterator[FieldFinding]:
    """RedBeat, then Torch, with the same notes and kills."""
    seconds, kills = (10, 1) if quick else (90, 6)
    for timetable in (RedbeatTimetable(stage), TorchTimetable(stage)):
        if timetable.why_not:
            yield FieldFinding(
                CHECKINS, f"missed, at {kills} kills", timetable.system, None, f"per {PER:,}", timetable.why_not
            )
            continue
        empty()
        with timetable.receiver():
            yield from _findings(timetable, *_kept(timetable, seconds, kills), kills)


def _kept(timetable: BeatsTimetable, seconds: int, kills: int) -> tuple[Sequence[datetime], Arrivals]:
    """When each note was due, and what came."""
    with ExitStack() as stack:
        beats = [stack.enter_context(timetable.beat(0))]
        await_true(timetable.is_led, READY_SECONDS, f"a beat of {timetable.system} leads")
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=BEFORE_SECONDS)
        due = [start + timedelta(seconds=number // PER_SECOND) for number in range(seconds * PER_SECOND)]
        timetable.add(due)
        for kill in range(1, kills + 1):
            beats.append(stack.enter_context(timetable.beat(kill)))
            _sleep_until(start + timedelta(seconds=seconds * (kill - 0.5) / kills))
            beats.pop(0).kill()  # it leads: those that were started later stand by
        _sleep_until(due[-1] + timedelta(seconds=SETTLE_SECONDS))
        return due, timetable.arrivals()


def _sleep_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def _findings(timetable: BeatsTimetable, due: Sequence[datetime], came: Arrivals, kills: int) -> Iterator[FieldFinding]:
    times = Counter(number for number, _ in came)
    first = dict(reversed(came))
    late = [at - due[number].timestamp() for number, at in first.items()]
    for what, count in (
        (f"missed, at {kills} kills", len(due) - len(times)),
        ("came twice", sum(many > 1 for many in times.values())),
        (f"later than {LATE_SECONDS:g} s", sum(seconds > LATE_SECONDS for seconds in late)),
    ):
        yield FieldFinding.share(CHECKINS, what, timetable.system, count, len(due), PER)
    if len(late) > 1:
        for name, value in (("p50", percentile(late, 50)), ("p99", percentile(late, 99)), ("longest", max(late))):
            yield FieldFinding(CHECKINS, f"lateness, {name}", timetable.system, value, "s")


class BeatsTimetable(ABC):
    """Beats and what they send."""

    system: str
    why_not = ""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @abstractmethod
    def beat(self, number: int) -> AbstractContextManager[psutil.Popen]:
        """One more beat."""

    @abstractmethod
    def is_led(self) -> bool:
        """Whether a beat leads."""

    @abstractmethod
    def add(self, due: Sequence[datetime]) -> None:
        """Have a note come at each of these moments."""

    @abstractmethod
    def receiver(self) -> AbstractContextManager[None]:
        """Something takes the notes meanwhile."""

    @abstractmethod
    def arrivals(self) -> Arrivals:
        """What has come."""


class TorchTimetable(BeatsTimetable):
    """Check-ins for an agent, whose inbox tells what came and when."""

    system = TORCH

    def beat(self, number: int) -> AbstractContextManager[psutil.Popen]:
        return beat(self.stage, f"field-{number}")

    def is_led(self) -> bool:
        return bool(leader())

    def add(self, due: Sequence[datetime]) -> None:
        self._asked = [
            Checkin(
                id=f"note-{number}",
                note="look at the build",
                target=Target(agent=AGENT),
                schedule=At(at=at),
                when="now",
                sender="operator",
            )
            for number, at in enumerate(due)
        ]
        fleet().checkins.add_all(self._asked)

    @contextmanager
    def receiver(self) -> Iterator[None]:
        stop = Event()
        agent = registered(AGENT)

        def live() -> None:
            while not stop.wait(1):
                fleet().registry.heartbeat(agent)

        Thread(target=live, daemon=True).start()
        try:
            with self.stage.worker("torch_tasks", "--node", log="field-node", TORCH_AGENTS="[]", **ROOM):
                log = self.stage.folder / "field-node.log"
                await_true(lambda: " ready." in log.read_text(), READY_SECONDS, "the node worker is ready")
                yield
        finally:
            stop.set()

    def arrivals(self) -> Arrivals:
        """Moments by the broker's clock, which is this machine's."""
        numbers = {derived_id(one.id, one.schedule.at, AGENT): number for number, one in enumerate(self._asked)}
        return [
            (numbers[entry.message_id], int(entry.number.partition("-")[0]) / 1000)
            for entry in fleet().inboxes.waiting(AGENT)
        ]


class RedbeatTimetable(BeatsTimetable):
    """Entries of RedBeat, and what it puts into its queue."""

    system = REDBEAT

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._folder = redbeat_folder(stage)
        self.why_not = "" if self._folder else NOT_INSTALLED
        self._came: Arrivals = []

    def beat(self, number: int) -> AbstractContextManager[psutil.Popen]:
        return beat(self.stage, f"redbeat-{number}", app="benchmarks.redbeat", **self._env())

    def is_led(self) -> bool:
        return bool(fleet().client.exists("redbeat::lock"))

    def add(self, due: Sequence[datetime]) -> None:
        argv = [sys.executable, "-c", _ENTER, json.dumps([at.isoformat() for at in due])]
        subprocess.run(argv, env={**os.environ, **self._env()}, cwd=ROOT, check=True)

    @contextmanager
    def receiver(self) -> Iterator[None]:
        stop = Event()

        def take() -> None:
            while not stop.is_set():
                if found := fleet().client.blpop(["redbeat"], timeout=1):
                    body = json.loads(base64.b64decode(json.loads(found[1])["body"]))
                    self._came.append((int(body[0][0]), time.time()))

        taking = Thread(target=take)
        taking.start()
        try:
            yield
        finally:
            stop.set()
            taking.join()

    def arrivals(self) -> Arrivals:
        return self._came

    def _env(self) -> dict[str, str]:
        return {
            "PYTHONPATH": f"{self._folder}{os.pathsep}{Path(ROOT)}",
            "BENCH_REDBEAT_LOCK_SECONDS": REDBEAT_LOCK_SECONDS,
        }


_ENTER = """
import json, sys
from datetime import datetime
from redbeat import RedBeatSchedulerEntry
from redbeat.schedules import rrule
from benchmarks.redbeat import app
for number, at in enumerate(json.loads(sys.argv[1])):
    once = rrule("SECONDLY", dtstart=datetime.fromisoformat(at), count=1, app=app)
    RedBeatSchedulerEntry(f"n-{number}", "benchmarks.redbeat.nothing", once, args=[str(number)], app=app).save()
"""

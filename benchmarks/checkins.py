"""Check-ins: what a look at the timetable costs, how late they come, who takes over, next to RedBeat."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

import psutil

from benchmarks.harness import CELERY, ROOT, Stage, await_true, clock, end
from benchmarks.measures import Measure, percentile
from torch_tasks import keys
from torch_tasks.app import app
from torch_tasks.beat.journal import Journal
from torch_tasks.beat.scheduler import TorchScheduler
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import At, Checkin, Target
from torch_tasks.model.fields import now
from torch_tasks.transport import Gate

MIB = 1 << 20
FEW, MANY = 1_000, 100_000
DUE = 10
LONG_SECONDS = 900.0


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """All of it on one broker, which is emptied in between."""
    many = 10_000 if quick else MANY
    small, large = (_turns(count, 20 if quick else 200) for count in (FEW, many))
    return [
        Measure(f"a turn with nothing due, of {FEW:,} entries, p50", small[0], "ms"),
        Measure(f"a turn with nothing due, of {many:,} entries, p50", large[0], "ms", goal=1.0),
        Measure(f"a turn with {DUE} due, of {FEW:,} entries, p50", small[1], "ms"),
        Measure(f"a turn with {DUE} due, of {many:,} entries, p50", large[1], "ms"),
        Measure(f"the same, {many:,} against {FEW:,}", large[1] / small[1], "times", goal=2.0),
        *_memory(stage, many),
        *_lateness(stage, *((200, 10.0) if quick else (1_000, 60.0))),
        *_at_once(stage, 1_000 if quick else 10_000),
        *_takeover(stage, 3 if quick else 20),
        *_redbeat(stage, 1_000 if quick else 10_000),
    ]


# ── one turn ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _turns(entries: int, times: int) -> tuple[float, float]:
    """What a turn of the scheduler costs in milliseconds: with nothing due, and with ten entries to fire."""
    empty()
    _fill(entries)
    shutil.rmtree(fleet().settings.state_dir / "beat", ignore_errors=True)
    scheduler = TorchScheduler(app)
    ids = [str(one) for one in range(DUE)]
    try:
        scheduler._turn()
        journal = fleet().settings.state_dir / "beat"
        await_true(lambda: _journalled(journal) > entries, LONG_SECONDS, "the journal holds all entries")
        idle = [clock(scheduler._turn) * 1000 for _ in range(times)]
        busy = []
        for _ in range(times):
            for one in ids:
                fleet().checkins.run_now(one)
            busy.append(clock(scheduler._turn) * 1000)
    finally:
        scheduler.close()
    return median(idle), median(busy)


def _fill(entries: int) -> None:
    for start in range(0, entries, 1000):
        fleet().checkins.add_all(_checkin(str(one), 86_400) for one in range(start, min(start + 1000, entries)))


def _checkin(name: str, seconds: float) -> Checkin:
    """One that comes up once, so many seconds from now."""
    return Checkin(
        id=name,
        note="look at the build and say what is missing",
        target=Target(agent="bench-1"),
        schedule=At(at=now() + timedelta(seconds=seconds)),
        sender="operator",
    )


def empty() -> None:
    """A broker without anything on it."""
    fleet().client.flushall()
    Gate(fleet().client).open_new()


# ── beat as a process ────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def beat(stage: Stage, name: str, app: str = "torch_tasks", **environment: str) -> Iterator[psutil.Popen]:
    """A beat with a state folder of its own, and the keys of the stage's fleet."""
    state = stage.folder / "beats" / name
    state.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "TORCH_STATE_DIR": str(state), "TORCH_KEYS_DIR": str(stage.folder / "keys"), **environment}
    with (state / "log").open("ab") as log:
        argv = [*CELERY, "-A", app, "beat", "--loglevel", "WARNING", "-s", str(state / "schedule")]
        process = psutil.Popen(argv, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        end(process)


def leader() -> str:
    """The leading process, by the name that it gives itself; empty if none leads."""
    return str(fleet().client.get(keys.BEAT_LEADER) or "")


def pid_of(leader: str) -> int:
    """The process that gives itself this name; 0 of none."""
    return int(leader.rsplit("-", 2)[1]) if leader else 0


def _memory(stage: Stage, entries: int) -> Iterator[Measure]:
    empty()
    for count in (0, entries):
        if count:
            _fill(count)
        with beat(stage, f"memory-{count}") as running:
            await_true(lambda: bool(leader()), 60, "beat leads")
            journal = stage.folder / "beats" / f"memory-{count}" / "beat"
            await_true(
                lambda journal=journal, count=count: _journalled(journal) >= count, 300, "beat knows all entries"
            )
            yield Measure(f"RSS of beat with {count:,} entries", running.memory_info().rss / MIB, "MiB")


def _journalled(folder: Path) -> int:
    """How many entries the beat with this state folder remembers."""
    files = list(folder.glob("*.sqlite"))
    return sum(len(accounts) for file in files for accounts in Journal(file).accounts())


def _lateness(stage: Stage, count: int, seconds: float) -> Iterator[Measure]:
    """Entries spread evenly over a while."""
    empty()
    with beat(stage, "lateness"):
        await_true(lambda: bool(leader()), 60, "beat leads")
        late = _fired([_checkin(f"late-{one}", 2 + seconds * one / count) for one in range(count)], seconds)
    for percent in (50, 99):
        goal = 250.0 if percent == 99 else None
        name = f"lateness, {count:,} entries over {seconds:g} s, p{percent}"
        yield Measure(name, percentile(late, percent) * 1000, "ms", goal=goal)
    yield Measure(f"lateness, {count:,} entries over {seconds:g} s, longest", max(late) * 1000, "ms")


def _at_once(stage: Stage, count: int) -> Iterator[Measure]:
    """Entries that are all due at the same moment."""
    empty()
    with beat(stage, "at-once"):
        await_true(lambda: bool(leader()), 60, "beat leads")
        moment = _checkin("x", 15 + count / 1000).schedule
        asked = [_checkin(f"once-{one}", 60).model_copy(update={"schedule": moment}) for one in range(count)]
        late = _fired(asked, 20 + count / 1000)
    yield Measure(f"{count:,} due at the same second: fired", len(late), "entries", goal=count, direction="≥")
    yield Measure(f"{count:,} due at the same second: the last one after", max(late), "s")
    yield Measure(f"{count:,} due at the same second: rate", count / max(late), "per s")


def _fired(asked: Sequence[Checkin], seconds: float) -> list[float]:
    """Add these; how late each of them fired, in seconds."""
    for start in range(0, len(asked), 1000):
        fleet().checkins.add_all(asked[start : start + 1000])
    standing = len(fleet().client.zrange(keys.PERIODIC, 0, -1))
    await_true(lambda: fleet().client.zcard(keys.CHECKINS_DUE) == standing, seconds + LONG_SECONDS, "all have fired")
    return [record.last.late for record in fleet().checkins.scan() if record.last]


def _takeover(stage: Stage, kills: int) -> Iterator[Measure]:
    took = successions(stage, kills)
    yield Measure(f"takeover after kill -9, {kills} times, median", median(took), "s")
    yield Measure(f"takeover after kill -9, {kills} times, longest", max(took), "s", goal=10.0)


def successions(stage: Stage, kills: int) -> list[float]:
    """How long no beat led after the leader was killed, in seconds."""
    empty()
    took = []
    with ExitStack() as stack:

        def start(number: int) -> None:
            started = stack.enter_context(beat(stage, f"stands-{number}"))
            beats[started.pid] = started

        beats: dict[int, psutil.Popen] = {}
        start(0)
        for kill in range(1, kills + 1):
            start(kill)
            time.sleep(3)  # until it stands by
            await_true(lambda: pid_of(leader()) in beats, 60, "a beat leads")
            held, begun = leader(), time.monotonic()
            beats.pop(pid_of(held)).kill()
            await_true(lambda held=held: leader() not in ("", held), 60, "the other one leads")
            took.append(time.monotonic() - begun)
    return took


# ── RedBeat ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _redbeat(stage: Stage, count: int) -> Iterator[Measure]:
    """The same number of entries due at once."""
    name = f"RedBeat: {count:,} due at once, the last one after"
    folder = redbeat_folder(stage)
    if not folder:
        yield Measure(name, None, "s", note="not installed: the package cannot be had here")
        return
    empty()
    env = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    subprocess.run([sys.executable, "-c", _ENTER, str(count)], env=env, cwd=ROOT, check=True)
    begun = time.monotonic()
    with beat(stage, "redbeat", app="benchmarks.redbeat", PYTHONPATH=f"{folder}:{ROOT}") as running:
        first: list[float] = []

        def all_sent() -> bool:
            sent = _waiting("redbeat")
            if sent and not first:
                first.append(time.monotonic())
            return sent >= count or not running.is_running()

        await_true(all_sent, LONG_SECONDS, "RedBeat has sent all")
        took = time.monotonic() - (first[0] if first else begun)
    yield Measure(name, took, "s", note="from the first one")
    yield Measure(f"RedBeat: {count:,} due at once, rate", count / took, "per s")


def redbeat_folder(stage: Stage) -> Path | None:
    """Where RedBeat is installed for this run; None if it cannot be had."""
    folder = stage.folder / "redbeat"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "celery-redbeat"]
    there = folder.exists() or not subprocess.run(pip, capture_output=True, check=False).returncode
    return folder if there else None


def _waiting(queue: str) -> int:
    return sum(fleet().client.llen(str(name)) for name in fleet().client.scan_iter(f"{queue}*", _type="list"))


_ENTER = """
import sys
from datetime import datetime, timedelta, timezone
from celery.schedules import schedule
from redbeat import RedBeatSchedulerEntry
from benchmarks.redbeat import app
for number in range(int(sys.argv[1])):
    entry = RedBeatSchedulerEntry(
        f"e-{number}", "benchmarks.redbeat.nothing", schedule(3600, app=app), args=["look at the build"], app=app
    )
    entry.last_run_at = datetime.now(timezone.utc) - timedelta(hours=2)
    entry.save()
"""

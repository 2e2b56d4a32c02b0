"""What became of accepted tasks while workers were killed: the same tasks, the same kills, Torch and plain Celery."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.bare import bare_app
from benchmarks.field.findings import CELERY, KILLED, RECOVERY, TORCH, FieldFinding
from benchmarks.harness import CELERY as CELERY_COMMAND
from benchmarks.harness import READY_SECONDS, ROOT, Stage, await_true, end
from benchmarks.measures import percentile
from torch_tasks.errors import AgentNotFound
from torch_tasks.workers.tmux.server import AgentServer

PER = 10_000
WORKERS = tuple(f"killed-{number}" for number in range(1, 5))
ROLE = "killed"
BACKLOG = 16
SHORTEST, LONGEST = 0.05, 0.6
PAUSE = (0.3, 1.5)
VISIBILITY_SECONDS = 10
STILL_SECONDS = 45.0
"""So long without an effect, and what is missing counts as lost: twice what Celery needs to give a task out again."""

SCRIPT = """\
echo "start $EPOCHREALTIME ${{TORCH_AGENT_ID:-$BENCH_WORKER}}" >> {file}
sleep {seconds:.2f}
echo "end $EPOCHREALTIME ${{TORCH_AGENT_ID:-$BENCH_WORKER}}" >> {file}
"""
app = bare_app("killed", polling_interval=None, visibility_timeout=VISIBILITY_SECONDS, unacked_restore_throttle=1)
app.conf.task_reject_on_worker_lost = True


@app.task
def run(script: str) -> None:
    """What an agent does with a task: a shell runs it."""
    subprocess.run(["bash", "-c", script], check=True)


def measure(stage: Stage, quick: bool) -> Iterator[FieldFinding]:
    """Plain Celery, then Torch."""
    kills = 2 if quick else 30
    for system, fleet in ((CELERY, CeleryFleet), (TORCH, TorchFleet)):
        with fleet(stage) as struck:
            yield from KillStorm(struck, system).findings(kills)


# ── those that are struck ────────────────────────────────────────────────────────────────────────────────────────


class StruckFleet(ABC):
    """Four workers, one task at a time each, which are started again when they have died."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.effects = stage.folder / type(self).__name__
        self.effects.mkdir()
        self._all = ExitStack()

    @abstractmethod
    def __enter__(self) -> Self:
        """Have all workers ready."""

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._all.close()

    @abstractmethod
    def put(self, script: str) -> None:
        """Have the task accepted."""

    @abstractmethod
    def worker(self, name: str) -> psutil.Process | None:
        """The process that takes tasks under this name, if it takes any now."""

    @abstractmethod
    def belongings(self, name: str, worker: psutil.Process) -> list[psutil.Process]:
        """What runs because of it."""

    @abstractmethod
    def revive(self) -> None:
        """Start what has died, if nothing else does."""


class CeleryFleet(StruckFleet):
    """Workers of plain Celery in its usual pool, with late acknowledgement."""

    def __enter__(self) -> Self:
        self._workers: dict[str, psutil.Popen] = {}
        self.revive()
        self._all.callback(lambda: [end(worker) for worker in self._workers.values()])
        await_true(lambda: all(map(self.worker, WORKERS)), READY_SECONDS, "Celery's workers are ready")
        return self

    def put(self, script: str) -> None:
        run.apply_async((script,), ignore_result=True)

    def worker(self, name: str) -> psutil.Process | None:
        return self._workers[name] if " ready." in self._log(name).read_text() else None

    def belongings(self, name: str, worker: psutil.Process) -> list[psutil.Process]:
        return worker.children(recursive=True)

    def revive(self) -> None:
        for name in WORKERS:
            if name not in self._workers or self._workers[name].poll() is not None:
                self._start(name)

    def _start(self, name: str) -> None:
        words = ("-A", "benchmarks.field.kills", "worker", "-c", "1", "-n", f"{name}@bench", "--loglevel", "INFO")
        with self._log(name).open("wb") as log:
            self._workers[name] = psutil.Popen(
                [*CELERY_COMMAND, *words],
                cwd=ROOT,
                env={**os.environ, "BENCH_WORKER": name},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _log(self, name: str) -> Path:
        return self.stage.folder / f"celery-{name}.log"


class TorchFleet(StruckFleet):
    """Shell agents of a node worker, which starts their workers again."""

    def __enter__(self) -> Self:
        agents = [{"id": name, "role": ROLE, "workdir": str(self.stage.folder)} for name in WORKERS]
        at_once = {"TORCH_RESTART_BACKOFF_LIMIT_SECONDS": "1", "TORCH_QUARANTINE_CRASHES": "1000"}
        with (self.stage.folder / "killed-node.log").open("wb") as log:
            node = psutil.Popen(
                [sys.executable, "-m", "torch_tasks.cli", "node"],
                cwd=ROOT,
                env={**os.environ, **at_once, "TORCH_AGENTS": json.dumps(agents)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for name in WORKERS:
            kill = ["tmux", "-S", str(self._socket(name)), "kill-server"]
            self._all.callback(subprocess.run, kill, capture_output=True, check=False)
        self._all.callback(end, node)
        await_true(lambda: all(map(self.worker, WORKERS)), READY_SECONDS, "Torch's agents are ready")
        return self

    def put(self, script: str) -> None:
        self.stage.torch.enqueue(script, role=ROLE, max_retries=50)

    def worker(self, name: str) -> psutil.Process | None:
        with suppress(AgentNotFound, psutil.NoSuchProcess):
            info = self.stage.torch.agent(name)
            return psutil.Process(info.pid) if info.online and info.pane else None
        return None

    def belongings(self, name: str, worker: psutil.Process) -> list[psutil.Process]:
        server = AgentServer(self._socket(name)).listener()
        return [*worker.children(recursive=True), *([server, *server.children(recursive=True)] if server else [])]

    def revive(self) -> None:
        """The node worker does."""

    def _socket(self, name: str) -> Path:
        return self.stage.folder / "agents" / name / "tmux"


# ── the storm ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class EffectMark:
    """What a task wrote when its effect began or was complete."""

    what: str
    at: float
    worker: str


@dataclass(frozen=True)
class Kill:
    """A worker's death; ``whole``: with what it ran."""

    worker: str
    at: float
    whole: bool


class KillStorm:
    """Tasks flow, workers are killed, and then everything may come to its end."""

    def __init__(self, fleet: StruckFleet, system: str) -> None:
        self._fleet = fleet
        self._system = system
        self._choose = random.Random(7)
        self._put = 0

    def findings(self, kills: int) -> Iterator[FieldFinding]:
        """What the effects show."""
        struck = [self._kill(number % 2 == 1) for number in range(kills)]
        self._settle()
        tasks = [self._marks(number) for number in range(self._put)]
        ends = [sum(mark.what == "end" for mark in marks) for marks in tasks]
        starts = [sum(mark.what == "start" for mark in marks) for marks in tasks]
        for what, count in (
            (f"accepted and never done, at {kills} kills", sum(not times for times in ends)),
            ("done twice", sum(times > 1 for times in ends)),
            ("begun again", sum(times > 1 for times in starts)),
        ):
            yield FieldFinding.share(KILLED, what, self._system, count, self._put, PER)
        yield from self._recoveries(struck, tasks)

    def _kill(self, whole: bool) -> Kill:
        """Strike a worker that is at work, when all of them are there."""
        calm = time.monotonic() + self._choose.uniform(*PAUSE)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self._tend()
            name = self._choose.choice(WORKERS)
            worker = self._fleet.worker(name)
            if time.monotonic() > calm and worker and all(map(self._fleet.worker, WORKERS)):
                break
            if time.monotonic() > deadline:
                raise TimeoutError("not all workers came back")
        doomed = [worker, *(self._fleet.belongings(name, worker) if whole else [])]
        at = time.time()
        for process in doomed:
            with suppress(psutil.NoSuchProcess):  # one takes the other with it
                process.kill()
        if isinstance(worker, psutil.Popen):
            worker.wait()
        return Kill(name, at, whole)

    def _tend(self) -> None:
        self._fleet.revive()
        while self._put - self._done() < BACKLOG:
            file = self._fleet.effects / str(self._put)
            self._fleet.put(SCRIPT.format(file=file, seconds=self._choose.uniform(SHORTEST, LONGEST)))
            self._put += 1
        time.sleep(0.05)

    def _done(self) -> int:
        return sum(any(mark.what == "end" for mark in self._marks(number)) for number in range(self._put))

    def _settle(self) -> None:
        """Until all tasks have had their effect, and no more is to come; or nothing has moved for long."""
        seen, since = -1, time.monotonic()
        while time.monotonic() < since + STILL_SECONDS:
            self._fleet.revive()
            if (marks := sum(len(self._marks(number)) for number in range(self._put))) != seen:
                seen, since = marks, time.monotonic()
            if self._done() == self._put and time.monotonic() > since + 2.5 * VISIBILITY_SECONDS:
                return
            time.sleep(0.2)

    def _marks(self, number: int) -> list[EffectMark]:
        file = self._fleet.effects / str(number)
        lines = file.read_text().splitlines() if file.exists() else []
        return [EffectMark(what, float(at), worker) for what, at, worker in map(str.split, lines)]

    def _recoveries(self, kills: list[Kill], tasks: list[list[EffectMark]]) -> Iterator[FieldFinding]:
        """From a worker's death to the next beginning of the task that it had."""
        took: dict[bool, list[float]] = {False: [], True: []}
        died: dict[str, float] = {}
        for kill in kills:
            again = [begun_again(marks, kill, since=died.get(kill.worker, 0)) for marks in tasks]
            took[kill.whole] += [at - kill.at for at in again if at is not None]
            died[kill.worker] = kill.at
        for whole, what in ((False, "worker"), (True, "worker and what it ran")):
            yield from spread(f"kill -9 of a {what} → its task begun again", self._system, took[whole])


def begun_again(marks: list[EffectMark], kill: Kill, since: float) -> float | None:
    """When the task was begun again that the killed worker had begun since it had died before."""
    before = [mark for mark in marks if mark.at <= kill.at]
    if before and before[-1].what == "start" and before[-1].worker == kill.worker and before[-1].at > since:
        return next((mark.at for mark in marks if mark.at > kill.at and mark.what == "start"), None)
    return None


def spread(measure: str, system: str, took: list[float]) -> Iterator[FieldFinding]:
    """The percentiles of so many seconds; nothing of none."""
    if not took:
        return
    known: dict[str, Any] = {"table": RECOVERY, "system": system, "unit": "s"}
    values = took if len(took) > 1 else took * 2
    for percent in (50, 95, 99):
        note = f"of {len(took)}" if percent == 50 else ""
        yield FieldFinding(measure=f"{measure}, p{percent}", value=percentile(values, percent), note=note, **known)

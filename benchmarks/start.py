"""How long an agent worker and the command take to start."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.harness import READY_SECONDS, ROOT, Stage, clock
from benchmarks.measures import Measure

COMMAND = Path(sys.executable).with_name("torch-tasks")
IMPORTS = "import celery.bin.celery, celery.apps.worker, torch_tasks.tasks, workers.program, workers.agent_worker"


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """The worker, its imports, the command."""
    workers, commands = (2, 3) if quick else (5, 10)
    starts = [_worker(stage, f"starter-{number}") for number in range(workers)]
    ready, worked = (median(times) for times in zip(*starts, strict=True))
    python = _command(sys.executable, "-c", "pass", times=commands)
    return [
        Measure("agent worker: start to ready", ready, "s"),
        Measure("agent worker: start to first task done", worked, "s"),
        Measure("of which Python itself", python, "s"),
        Measure("of which imports", _command(sys.executable, "-c", IMPORTS, times=commands) - python, "s"),
        _version(commands),
    ]


def _worker(stage: Stage, agent_id: str) -> tuple[float, float]:
    """Seconds until the registry calls it ready, and until it has done a task that waited for it."""
    task = stage.torch.enqueue(":", agent=agent_id)
    begun = time.perf_counter()
    with stage.agent(agent_id) as agent:
        stage.await_ready(agent)
        ready = time.perf_counter() - begun
        task.result(READY_SECONDS).raise_for_status()
        return ready, time.perf_counter() - begun


def _version(times: int) -> Measure:
    name = "torch-tasks --version"
    if subprocess.run([COMMAND, "--version"], capture_output=True, check=False).returncode:
        return Measure(name, None, "ms", goal=150, note="fails")
    return Measure(name, 1000 * _command(str(COMMAND), "--version", times=times), "ms", goal=150)


def _command(*argv: str, times: int) -> float:
    run = partial(subprocess.run, argv, cwd=ROOT, capture_output=True, check=True)
    return median(clock(run) for _ in range(times))

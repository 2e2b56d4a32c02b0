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
IMPORTS = """
import time
begun = time.perf_counter()
import celery.bin.celery, celery.apps.worker
import torch_tasks.tasks.run, torch_tasks.workers.program, torch_tasks.workers.host.agent_worker
print(time.perf_counter() - begun)
"""


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """The worker, its imports, the command."""
    workers, commands = (2, 3) if quick else (5, 10)
    starts = [_worker(stage, f"starter-{number}") for number in range(workers)]
    ready, worked = (median(times) for times in zip(*starts, strict=True))
    return [
        Measure("agent worker: start to ready", ready, "s"),
        Measure("agent worker: start to first task done", worked, "s"),
        Measure("of which imports", median(_imports() for _ in range(commands)), "s"),
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


def _imports() -> float:
    """Seconds that a worker's imports take, measured in the process itself, without its end."""
    return float(subprocess.check_output([sys.executable, "-c", IMPORTS], cwd=ROOT))


def _version(times: int) -> Measure:
    name, argv = "torch-tasks --version", [str(COMMAND), "--version"]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        return Measure(name, None, "ms", goal=150, note="fails")
    run = partial(subprocess.run, argv, capture_output=True, check=True)
    return Measure(name, 1000 * median(clock(run) for _ in range(times)), "ms", goal=150)

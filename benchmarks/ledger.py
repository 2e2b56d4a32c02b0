"""What it costs that a task is on this machine's disk before it is on the broker, against plain Celery."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

from benchmarks.bare import UNREAD, app, nothing
from benchmarks.enqueue import AGENT, PROMPT
from benchmarks.harness import Stage, clock
from benchmarks.measures import Measure
from torch_tasks.fleet import fleet
from torch_tasks.settings import settings
from torch_tasks.tasks import recovery
from torch_tasks.transport import Gate


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Enqueueing, then what the ledger is for."""
    return [*_enqueueing(stage, *(6, 50) if quick else (30, 100)), *_putting_back(stage, 200 if quick else 2000)]


def _enqueueing(stage: Stage, batches: int, size: int) -> list[Measure]:
    send = partial(nothing.apply_async, (PROMPT,), queue=UNREAD)
    enqueue = partial(stage.torch.enqueue, PROMPT, agent=AGENT)

    def times(action: partial[object]) -> float:
        action()  # connections, scripts, the file
        return clock(lambda: [action() for _ in range(size)]) * 1000 / size

    def one_round() -> tuple[float, float, float]:
        noted = times(enqueue)
        with _no_ledger():
            plain = times(enqueue)
        return noted, plain, times(send)

    one_round()
    noted, plain, bare = (median(found) for found in zip(*(one_round() for _ in range(batches)), strict=True))
    app.control.purge()
    return [
        Measure("Torch().enqueue", noted, "ms"),
        Measure("Torch().enqueue without the ledger", plain, "ms"),
        Measure("Celery's delay", bare, "ms"),
        Measure("what the ledger adds", noted - plain, "ms"),
        Measure("of which this disk takes for a flushed write", _flush(stage), "ms"),
        Measure("rate with the ledger", 1000 / noted, "tasks/s"),
        Measure("rate of plain Celery", 1000 / bare, "tasks/s"),
        Measure("Torch's rate against plain Celery's", bare / noted, ""),
        Measure("the same without the ledger", bare / plain, "", goal=0.8, direction="≥"),
    ]


def _flush(stage: Stage) -> float:
    """What any program pays for having a few kilobytes on the disk."""

    def write() -> None:
        os.write(handle, bytes(16 << 10))
        os.fdatasync(handle)

    handle = os.open(stage.folder / "flushed", os.O_CREAT | os.O_WRONLY)
    try:
        return median(clock(write) for _ in range(200)) * 1000
    finally:
        os.close(handle)


def _putting_back(stage: Stage, count: int) -> list[Measure]:
    """A broker that lost everything, and one that lost nothing."""
    with _own_folder(stage):
        for _ in range(count):
            stage.torch.enqueue(PROMPT, agent=AGENT)
        recovery.restore_all()
        comparing = clock(recovery.restore_all)
        looking = [clock(recovery.settle) for _ in range(200)]
        fleet().client.flushall()
        Gate(fleet().client).open_new()
        restoring = clock(recovery.restore_all)
        fleet().client.delete(f"torch.agent.{AGENT}\x06\x166")
    return [
        Measure("a look that finds nothing to do", median(looking) * 1000, "ms"),
        Measure(f"comparing {count} open tasks", comparing * 1000, "ms"),
        Measure("putting back after everything was lost", count / restoring, "tasks/s"),
    ]


@contextmanager
def _no_ledger() -> Iterator[None]:
    with _environment("TORCH_LEDGER", "false"):
        yield


@contextmanager
def _own_folder(stage: Stage) -> Iterator[None]:
    """A ledger in which there is nothing else."""
    with _environment("TORCH_STATE_DIR", str(stage.folder / "ledger")):
        yield


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    _read_settings_anew()
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
        _read_settings_anew()


def _read_settings_anew() -> None:
    settings.cache_clear()
    fleet.cache_clear()

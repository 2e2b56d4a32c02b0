"""The leased transport against kombu's own under plain Celery, what its leases cost, how soon a task is taken over."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from benchmarks import bare, leased
from benchmarks.harness import READY_SECONDS, Stage, await_true, clock
from benchmarks.measures import Measure, percentile
from torch_tasks.fleet import fleet

ONE_THREAD = ("-P", "threads", "-c", "1", "--without-gossip", "--without-mingle", "--without-heartbeat")


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """The rates, then the leases, then the dead."""
    return [
        *_enqueue(leased, bare, *(6, 50) if quick else (30, 100)),
        *_drain(stage, leased, bare, *(3, 200) if quick else (15, 1000)),
        *_lease_cost(stage, leased, 10 if quick else 40),
        *_takeover(stage, leased, 1 if quick else 5),
    ]


def _enqueue(leased: ModuleType, bare: ModuleType, batches: int, size: int) -> list[Measure]:
    def send(module: ModuleType) -> None:
        for _ in range(size):
            module.nothing.apply_async(("",), queue=module.UNREAD)

    for module in (leased, bare):
        send(module)  # connections, scripts, queues
    pairs = [(size / clock(partial(send, leased)), size / clock(partial(send, bare))) for _ in range(batches)]
    with leased.app.connection() as connection:
        for module in (leased, bare):
            connection.default_channel.queue_purge(module.UNREAD)
    return _compared("enqueue", "tasks/s", pairs)


def _drain(stage: Stage, leased: ModuleType, bare: ModuleType, rounds: int, size: int) -> list[Measure]:
    with _worker(stage, "leased"), _worker(stage, "bare"):
        for module in (leased, bare):
            module.nothing.delay("").get(timeout=READY_SECONDS)  # only then does a worker take orders
            _drained(module, size)
        pairs = [(size / _drained(leased, size), size / _drained(bare, size)) for _ in range(rounds)]

        def trip(module: ModuleType) -> None:
            module.nothing.delay("").get(timeout=READY_SECONDS)

        trips = [(1000 * clock(partial(trip, leased)), 1000 * clock(partial(trip, bare))) for _ in range(size)]
    ours, theirs = zip(*trips, strict=True)
    return [
        *_compared("drain, one thread", "tasks/s", pairs, goal=1.0),
        *(Measure(f"round trip, leased, p{percent}", percentile(ours, percent), "ms") for percent in (50, 99)),
        *(Measure(f"round trip, kombu's, p{percent}", percentile(theirs, percent), "ms") for percent in (50, 99)),
    ]


def _drained(module: ModuleType, size: int) -> float:
    """Seconds that a worker takes for so many tasks that wait for it."""
    name = module.app.main
    control, worker = module.app.control, [f"{name}@bench"]
    control.cancel_consumer(name, destination=worker, reply=True, timeout=READY_SECONDS)
    for _ in range(size):
        module.nothing.apply_async(("",), ignore_result=True)
    last = module.nothing.delay("")

    def drain() -> None:
        control.add_consumer(name, destination=worker)
        last.get(timeout=READY_SECONDS)

    return clock(drain)


def _compared(what: str, unit: str, pairs: list[tuple[float, float]], goal: float | None = None) -> list[Measure]:
    ours, theirs = (median(values) for values in zip(*pairs, strict=True))
    return [
        Measure(f"{what}, leased", ours, unit),
        Measure(f"{what}, kombu's", theirs, unit),
        Measure(f"{what}: ratio", median(a / b for a, b in pairs), "", goal=goal, direction="≥"),
    ]


def _lease_cost(stage: Stage, leased: ModuleType, seconds: float) -> list[Measure]:
    """Commands as the broker counts them: those that a script runs count, too."""

    def commands() -> int:
        return sum(int(each["calls"]) for each in fleet().client.info("commandstats").values())

    def rate() -> float:
        time.sleep(3)
        before = commands()
        time.sleep(seconds)
        return (commands() - before) / seconds

    with _worker(stage, "leased"):
        leased.nothing.delay("").get(timeout=READY_SECONDS)
        idle = rate()
        leased.hold.delay(str(stage.folder / "busy"), seconds + 5)
        busy = rate()
    return [
        Measure("commands of an idle worker", idle, "per s", goal=1.5),
        Measure("commands of a worker at work", busy, "per s"),
    ]


def _takeover(stage: Stage, leased: ModuleType, times: int) -> list[Measure]:
    taken = [_taken_over(stage, leased, stage.folder / f"killed-{number}") for number in range(times)]
    return [
        Measure("kill -9 to running elsewhere, median", median(taken), "s"),
        Measure("the same, at most", max(taken), "s", goal=10),
    ]


def _taken_over(stage: Stage, leased: ModuleType, file: Path) -> float:
    """Seconds from a worker's death to its task's second beginning."""

    def begun() -> list[list[str]]:
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    with _worker(stage, "leased"), _worker(stage, "leased", "heir"):
        leased.hold.delay(str(file), 60.0)
        await_true(lambda: len(begun()) == 1, READY_SECONDS, "the task is begun")
        time.sleep(1)
        killed = time.time()
        os.kill(int(begun()[0][0]), signal.SIGKILL)
        await_true(lambda: len(begun()) == 2, READY_SECONDS, "the task is begun again")
        return float(begun()[1][1]) - killed


def _worker(stage: Stage, name: str, node: str = "") -> Any:
    node = node or name
    return stage.worker(f"benchmarks.{name}", *ONE_THREAD, "-n", f"{node}@bench", log=node)

"""How many tasks a second, and how long one takes there and back, beside plain Celery."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import enqueue, throughput
from benchmarks.bare import bare_app
from benchmarks.field.findings import CELERY, RATES, TORCH, FieldFinding
from benchmarks.harness import READY_SECONDS, Stage, await_true, clock

WORKERS = 4
ENQUEUED = {
    "Torch().enqueue": (TORCH, "enqueued one by one"),
    "Celery's delay": (CELERY, "enqueued one by one"),
    f"the same from {enqueue.THREADS} threads": (TORCH, f"enqueued from {enqueue.THREADS} threads"),
}
TRIPS = {"round trip of a shell agent": TORCH, "round trip of plain Celery": CELERY}

app = bare_app("trivial", polling_interval=None)


@app.task
def shell(command: str) -> None:
    """What a shell agent does with a trivial task."""
    subprocess.run(["bash", "-c", command], check=True)


def measure(stage: Stage, quick: bool) -> Iterator[FieldFinding]:
    """Tasks that wait for workers; then clients that enqueue, and wait."""
    tasks = 60 if quick else 500
    what = f"trivial shell commands, {WORKERS} workers, done"
    with stage.agents(WORKERS) as agents:
        done = next(iter(throughput.drained(stage, agents, tasks)))
    yield FieldFinding(RATES, what, TORCH, done.value, "per s")
    yield FieldFinding(RATES, what, CELERY, _drained(stage, tasks), "per s")
    yield from _enqueued(stage, quick)


def _drained(stage: Stage, tasks: int) -> float:
    """The rate of plain Celery's workers, for which all tasks wait already."""
    effects = stage.folder / "effects-of-celery"
    effects.touch()
    with ExitStack() as stack:
        names = [f"trivial-{number}@bench" for number in range(WORKERS)]
        for name in names:
            words = ("-P", "threads", "-c", "1", "-n", name)
            stack.enter_context(stage.worker("benchmarks.field.rates", *words, log=name))
        await_true(lambda: len(app.control.ping(names) or []) == WORKERS, READY_SECONDS, "Celery's workers are ready")
        app.control.cancel_consumer(app.main, destination=names, reply=True, timeout=READY_SECONDS, limit=WORKERS)
        for number in range(tasks):
            shell.apply_async((f"echo {number} >> {effects}",), ignore_result=True)

        def drain() -> None:
            app.control.add_consumer(app.main, destination=names)
            await_true(lambda: effects.read_bytes().count(b"\n") == tasks, READY_SECONDS, "all are done")

        return tasks / clock(drain)


def _enqueued(stage: Stage, quick: bool) -> Iterator[FieldFinding]:
    for measured in enqueue.measure(stage, quick):
        what, _, percentile = measured.name.rpartition(", ")
        if measured.name in ENQUEUED:
            system, way = ENQUEUED[measured.name]
            yield FieldFinding(RATES, way, system, measured.value, "per s")
        elif what == "Torch().enqueue_many":
            yield FieldFinding(RATES, f"enqueued {percentile}", TORCH, measured.value, "per s")
        elif what in TRIPS:
            name = f"a task that does nothing, there and back, {percentile}"
            yield FieldFinding(RATES, name, TRIPS[what], measured.value, "ms")

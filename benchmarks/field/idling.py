"""What one agent costs that has nothing to do, beside a worker of plain Celery."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks import idle
from benchmarks.bare import nothing
from benchmarks.field.findings import CELERY, IDLE, TORCH, FieldFinding
from benchmarks.harness import READY_SECONDS, Agent, Stage, await_true


def measure(stage: Stage, quick: bool) -> Iterator[FieldFinding]:
    """As many of either, one after the other, each of which has had work."""
    count, seconds = (1, 2.0) if quick else (10, 30.0)
    with stage.agents(count) as agents:
        yield from _cost(TORCH, stage, agents, seconds)
    with ExitStack() as stack:
        yield from _cost(CELERY, stage, [_plain(stage, stack, number) for number in range(count)], seconds)


def _plain(stage: Stage, stack: ExitStack, number: int) -> Agent:
    """A worker of plain Celery, with the pool that Torch's workers have, which takes the least."""
    name = f"plain-{number}"
    words = ("-P", "threads", "-c", "1", "-n", f"{name}@bench")
    worker = stack.enter_context(stage.worker("benchmarks.bare", *words, log=name))
    log = stage.folder / f"{name}.log"
    await_true(lambda: " ready." in log.read_text(), READY_SECONDS, f"{name} is ready")
    nothing.delay("").get(timeout=READY_SECONDS)
    return Agent(name, worker, Path("/nowhere"))


def _cost(system: str, stage: Stage, agents: list[Agent], seconds: float) -> Iterator[FieldFinding]:
    time.sleep(min(seconds, idle.SETTLE_SECONDS))
    found = idle.cost(stage, agents, seconds)
    yield FieldFinding(IDLE, "CPU of a worker", system, found.worker_cpu, "ms per second")
    yield FieldFinding(IDLE, "CPU of its terminal", system, found.terminal_cpu, "ms per second")
    yield FieldFinding(IDLE, "CPU of the broker for it", system, found.broker_cpu, "ms per second")
    yield FieldFinding(IDLE, "wake-ups of a worker", system, found.wake_ups, "per s")
    yield FieldFinding(IDLE, "commands to the broker for it", system, found.commands, "per s")
    yield FieldFinding(IDLE, "memory of a worker that it shares with no other (USS)", system, found.uss, "MiB")
    yield FieldFinding(IDLE, "memory of its terminal (PSS)", system, found.terminal_pss, "MiB")

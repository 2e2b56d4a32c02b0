"""Enqueueing and the round trip of a task that does nothing, against plain Celery."""

from __future__ import annotations

from functools import partial
from statistics import median

from benchmarks.bare import UNREAD, app, nothing
from benchmarks.harness import READY_SECONDS, Stage, clock
from benchmarks.measures import Measure, percentile

PROMPT = "run the tests and fix what fails"
AGENT = "nobody"
"""Tasks for an agent that never comes stay in its queue: only the sending is measured."""


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """The rates, then the round trips."""
    return [*_rates(stage, *(6, 50) if quick else (30, 100)), *_round_trips(stage, 30 if quick else 300)]


def _rates(stage: Stage, batches: int, size: int) -> list[Measure]:
    def torch() -> None:
        for _ in range(size):
            stage.torch.enqueue(PROMPT, agent=AGENT)

    send = partial(nothing.apply_async, (PROMPT,), queue=UNREAD)

    def bare() -> None:
        for _ in range(size):
            send()

    torch()  # connections, scripts, queues
    bare()
    pairs = [(size / clock(torch), size / clock(bare)) for _ in range(batches)]
    app.control.purge()
    ours, theirs = (median(rates) for rates in zip(*pairs, strict=True))
    return [
        Measure("Torch().enqueue", ours, "tasks/s"),
        Measure("Celery's delay", theirs, "tasks/s"),
        Measure("ratio, the ledger's flush to the disk included", ours / theirs, ""),
    ]


def _round_trips(stage: Stage, count: int) -> list[Measure]:
    def torch(agent: str) -> None:
        stage.torch.enqueue(":", agent=agent).result(READY_SECONDS).raise_for_status()

    def bare() -> None:
        nothing.delay("").get(timeout=READY_SECONDS)

    with (
        stage.agents(1) as [agent],
        stage.worker("benchmarks.bare", "-P", "threads", "-c", "1", "-n", "bare@localhost", log="bare"),
    ):
        for _ in range(5):
            torch(agent.id)
            bare()
        pairs = [(clock(partial(torch, agent.id)) * 1000, clock(bare) * 1000) for _ in range(count)]
    ours, theirs = zip(*pairs, strict=True)
    return [
        *(
            Measure(f"round trip of a shell agent, p{percent}", percentile(ours, percent), "ms")
            for percent in (50, 95, 99)
        ),
        *(
            Measure(f"round trip of plain Celery, p{percent}", percentile(theirs, percent), "ms")
            for percent in (50, 95, 99)
        ),
        Measure("difference of the p50s", median(ours) - median(theirs), "ms", goal=15),
    ]

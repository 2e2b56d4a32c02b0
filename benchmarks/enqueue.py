"""Enqueueing and the round trip of a task that does nothing, against plain Celery."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

from benchmarks.bare import UNREAD, app, nothing
from benchmarks.harness import READY_SECONDS, Stage, clock
from benchmarks.measures import Measure, percentile

PROMPT = "run the tests and fix what fails"
AGENT = "nobody"
"""Tasks for an agent that never comes stay in its queue: only the sending is measured."""

THREADS = 8


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

    def together() -> None:
        stage.torch.enqueue_many([{"prompt": PROMPT, "agent": AGENT}] * size)

    def from_threads() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in range(size):
                pool.submit(stage.torch.enqueue, PROMPT, agent=AGENT)

    ways = (torch, from_threads, together, bare)
    for way in ways:
        way()  # connections, scripts, queues
    rounds = [[size / clock(way) for way in ways] for _ in range(batches)]
    app.control.purge()
    ours, threads, many, theirs = map(median, zip(*rounds, strict=True))
    ratios = [median(found) for found in zip(*([rate / one[-1] for rate in one[:-1]] for one in rounds), strict=True)]
    return [
        Measure("Torch().enqueue", ours, "tasks/s"),
        Measure(f"the same from {THREADS} threads", threads, "tasks/s"),
        Measure(f"Torch().enqueue_many, {size} at once", many, "tasks/s"),
        Measure("Celery's delay", theirs, "tasks/s"),
        Measure("ratio one by one, the ledger's flush to the disk included", ratios[0], "", 0.6, "≥"),
        Measure("the same from threads", ratios[1], ""),
        Measure("the same of many at once", ratios[2], "", 2.0, "≥"),
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

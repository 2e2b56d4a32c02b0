"""What signatures cost: enqueueing with and without them, taking a message, and reading how tasks ended."""

from __future__ import annotations

import os
from functools import partial
from statistics import median

from benchmarks.enqueue import AGENT, PROMPT
from benchmarks.harness import Stage, clock
from benchmarks.measures import Measure
from torch_tasks import keys
from torch_tasks.fleet import fleet
from torch_tasks.settings import Signing, settings
from torch_tasks.transport.envelope import delivered

RECORDS = 1_000
_BOTH: tuple[Signing, ...] = ("enforce", "off")


def measure(stage: Stage, quick: bool) -> list[Measure]:
    batches, size = (6, 50) if quick else (30, 100)
    try:
        pairs = [(_rate(stage, "enforce", size), _rate(stage, "off", size)) for _ in range(batches + 1)][1:]
        taken = {signing: _delivery(signing, size) for signing in _BOTH}
        listed = {signing: _listing(stage, signing) for signing in _BOTH}
    finally:
        os.environ.pop("TORCH_SIGNING", None)
        settings.cache_clear()
    return [
        Measure("Torch().enqueue, signed", median(signed for signed, _ in pairs), "tasks/s"),
        Measure("Torch().enqueue, unsigned", median(unsigned for _, unsigned in pairs), "tasks/s"),
        Measure("ratio", median(signed / unsigned for signed, unsigned in pairs), "", 0.9, "≥"),
        Measure("verifying and reading a message", taken["enforce"], "µs"),
        Measure("reading a message", taken["off"], "µs"),
        Measure(f"listing {RECORDS:,} tasks, signed", listed["enforce"] * 1000, "ms"),
        Measure(f"listing {RECORDS:,} tasks, unsigned", listed["off"] * 1000, "ms"),
    ]


def _set(signing: Signing) -> None:
    os.environ["TORCH_SIGNING"] = signing
    settings.cache_clear()


def _rate(stage: Stage, signing: Signing, size: int) -> float:
    _set(signing)

    def enqueue() -> None:
        for _ in range(size):
            stage.torch.enqueue(PROMPT, agent=AGENT)

    return size / clock(enqueue)


def _delivery(signing: Signing, count: int) -> float:
    """Microseconds for one message, of those that were signed."""
    _set(signing)
    queue = keys.agent_queue(AGENT)
    messages = [text for text in fleet().deliveries.waiting(queue) if "torch-signature" in text[:40]][:count]
    return median(clock(partial(delivered, text, "tag", queue=queue)) for text in messages) * 1e6


def _listing(stage: Stage, signing: Signing) -> float:
    _set(signing)
    return median(clock(partial(stage.torch.tasks, RECORDS)) for _ in range(5))

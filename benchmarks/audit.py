"""The audit: what an entry costs, and how fast tasks are enqueued with it and without."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.harness import Stage, clock
from benchmarks.measures import Measure, percentile
from torch_tasks.settings import settings
from torch_tasks.system.chain import ChainedLog

_ENTRY = {
    "at": "2026-11-29T19:00:00.000000Z",
    "who": "person:operator",
    "what": "task.enqueue",
    "on": "id 0f3a0f3a0f3a0f3a0f3a0f3a0f3a0f3a agent dev-1",
    "rule": '[rights.person] default = "any" (/etc/torch/policy.toml, line 46)',
    "digest": "0f3a0f3a0f3a0f3a",
    "node": "build-1",
    "pid": 4711,
}


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """The entries, then looks at them, then the rates."""
    alone = [*_entries(200 if quick else 2000), *_looks(2_000 if quick else 100_000)]
    return [*alone, *_rates(stage, *(6, 50) if quick else (30, 100))]


def _entries(count: int) -> list[Measure]:
    with tempfile.TemporaryDirectory(dir=settings().state_dir) as folder:
        log = ChainedLog(Path(folder) / "audit", settings().audit_file_bytes)
        log.append(_ENTRY)
        plain = [clock(lambda: log.append(_ENTRY)) * 1e6 for _ in range(count)]
        durable = [clock(lambda: log.append(_ENTRY, durable=True)) * 1e3 for _ in range(count // 10)]
        verified = clock(log.verify)
        entries = sum(1 for _ in log.entries())
    return [
        *(Measure(f"an entry, p{percent}", percentile(plain, percent), "µs") for percent in (50, 99)),
        *(
            Measure(f"an entry that is on the disk, p{percent}", percentile(durable, percent), "ms")
            for percent in (50, 99)
        ),
        Measure("verifying", entries / verified, "entries/s"),
    ]


def _looks(count: int) -> list[Measure]:
    """How long a first look at a log takes, and one after that."""
    with tempfile.TemporaryDirectory(dir=settings().state_dir) as folder:
        log = ChainedLog(Path(folder) / "audit", settings().audit_file_bytes)
        for _ in range(count):
            log.append(_ENTRY)
        known = log.check({}).files
        log.append(_ENTRY)
        first, again = clock(lambda: log.check({})), clock(lambda: log.check(known))
    return [
        Measure(f"a first look at {count} entries", first, "s"),
        Measure("another one, after a new entry", again, "s", goal=1, direction="≤"),
    ]


def _rates(stage: Stage, batches: int, size: int) -> list[Measure]:
    def batch(extent: str) -> float:
        os.environ["TORCH_AUDIT"] = extent
        settings.cache_clear()
        return size / clock(lambda: [stage.torch.enqueue("true", agent="nobody") for _ in range(size)])

    batch("acts")
    pairs = [(batch("acts"), batch("off")) for _ in range(batches)]
    del os.environ["TORCH_AUDIT"]
    settings.cache_clear()
    noted, unnoted = (median(rates) for rates in zip(*pairs, strict=True))
    return [
        Measure("enqueue with the audit", noted, "tasks/s"),
        Measure("enqueue without", unnoted, "tasks/s"),
        Measure("ratio", noted / unnoted, "", goal=0.9, direction="≥"),
    ]

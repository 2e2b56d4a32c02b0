"""How long a task stands still when what works on it dies, and how long no beat leads: one row for each fault."""

from __future__ import annotations

from collections.abc import Iterator

import hosts

from benchmarks import recovery, takeover
from benchmarks.checkins import successions
from benchmarks.field.findings import RECOVERY, TORCH, FieldFinding
from benchmarks.field.kills import spread
from benchmarks.harness import Stage


def measure(stage: Stage, quick: bool) -> Iterator[FieldFinding]:
    """Of what has no like in plain Celery; the part "kills" has the others."""
    adopted = [*recovery.adoptions(stage, 1 if quick else 10)]
    yield from spread("kill -9 of a worker → its task watched again, same terminal", TORCH, adopted)
    if not quick:
        gone = [*recovery.takeovers(stage, 5)]
        yield from spread(
            "kill -9 of a worker and its terminal, nobody starts them again → its task on another agent", TORCH, gone
        )
        yield from _machines(3)
        yield from spread("kill -9 of the leading beat → another leads", TORCH, successions(stage, 8))


def _machines(times: int) -> Iterator[FieldFinding]:
    if reason := hosts.why_not():
        yield FieldFinding(RECOVERY, "a machine is lost → its task runs on another", TORCH, None, "s", reason)
        return
    for how, took in takeover.losses(times).items():
        yield from spread(f"a machine is lost ({how}) → its task runs on another", TORCH, took)

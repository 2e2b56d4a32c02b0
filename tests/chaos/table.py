"""What a storm did, as tables: the faults with their recovery times, and the oracle's counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chaos.oracle import FLEET, Strike, Verdict
from torch_tasks.model.task import TaskRecord

HEAD = ("FAULT", "COUNT", "RECOVERY p50", "p95", "max")


def recoveries(strikes: Sequence[Strike], records: Mapping[str, TaskRecord | None]) -> dict[str, list[float]]:
    """For each kind of fault the seconds from each strike to the next task that the struck part completed.

    A strike after which its part completed nothing more, because there was nothing more to do, adds no time. Who
    completes no tasks has recovered when it runs again.
    """
    ends = sorted(
        (record.finished_at.timestamp(), record.agent) for record in records.values() if record and record.finished_at
    )
    times: dict[str, list[float]] = {}
    for strike in strikes:
        delivered = (at for at, agent in ends if at > strike.after and strike.recovered_by in (agent, FLEET))
        after = strike.back_at or next(delivered, None)
        times.setdefault(strike.kind, []).extend([] if after is None else [after - strike.before])
    return times


def table(strikes: Sequence[Strike], records: Mapping[str, TaskRecord | None], verdict: Verdict) -> str:
    """Everything that a reader of the run wants to know first."""
    counts = {kind: sum(strike.kind == kind for strike in strikes) for kind in sorted({s.kind for s in strikes})}
    times = recoveries(strikes, records)
    rows = [HEAD, *((kind, str(count), *_spread(times[kind])) for kind, count in counts.items())]
    everything = [value for values in times.values() for value in values]
    rows.append(("all", str(len(strikes)), *_spread(everything)))
    totals = {
        "accepted": verdict.accepted,
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "not ended": verdict.unfinished,
        "failed": verdict.failed,
        "retried, visibly": verdict.retried,
        "orphans": len(verdict.orphans),
    }
    return _aligned(rows) + "\n\n" + "   ".join(f"{name} {count}" for name, count in totals.items())


def _spread(values: Sequence[float]) -> tuple[str, str, str]:
    if not values:
        return ("", "", "")
    ordered = sorted(values)
    p50, p95 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.95))
    return (f"{p50:.1f} s", f"{p95:.1f} s", f"{ordered[-1]:.1f} s")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(_cell, row, widths, range(len(row)))) for row in rows)


def _cell(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column else text.ljust(width)

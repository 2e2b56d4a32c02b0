"""How a task spent its time, as rows with a bar each: where it begins and how long it is, in percent of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from torch_tasks.model.trace import Span, SpanKind, Trace, as_tree

_NARROWEST = 0.4
_WIDE = frozenset({SpanKind.TASK, SpanKind.ATTEMPT, SpanKind.MESSAGE})


@dataclass(frozen=True)
class SpanBar:
    """One span of time, drawn."""

    span: Span
    depth: int
    left: float
    width: float
    seconds: float

    @property
    def name(self) -> str:
        span = self.span
        if span.kind is SpanKind.MESSAGE:
            return f"{span.name}: {span.sender} to {span.agent}"
        return f"{span.name}: {span.agent}" if span.kind is SpanKind.ATTEMPT else span.name

    @property
    def kind(self) -> str:
        """The class by which it has its colour."""
        return "failed" if self.span.failed and self.span.kind in _WIDE else str(self.span.kind)


def bars(trace: Trace, moment: datetime) -> Iterator[SpanBar]:
    """The bars of a trace; what goes on lasts until this moment."""
    if not trace.spans:
        return
    begin = min(span.begin for span in trace.spans)
    end = max(max(span.end or moment, span.begin) for span in trace.spans)
    whole = max((end - begin).total_seconds(), 1e-6)
    for depth, span in as_tree(trace.spans):
        seconds = max(((span.end or moment) - span.begin).total_seconds(), 0.0)
        width = min(max(100 * seconds / whole, _NARROWEST), 100.0)
        left = min(100 * (span.begin - begin).total_seconds() / whole, 100 - width)
        yield SpanBar(span, depth, round(left, 2), round(width, 2), seconds)

"""``torch-tasks trace`` as it is drawn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from torch_tasks.cli.trace import lines
from torch_tasks.model.trace import Span, SpanEvent, SpanKind, SpanLink, Trace

BEGIN = datetime(2026, 11, 29, 12, tzinfo=UTC)


def span(name: str, parent: str | None, first: float, last: float | None, **more: object) -> Span:
    fields = {"id": name, "kind": SpanKind.PHASE, "task_id": "t", **more}
    begin, end = (None if one is None else BEGIN + timedelta(seconds=one) for one in (first, last))
    return Span.model_validate({"name": name, "parent": parent, "begin": begin, "end": end, **fields})


def drawn(*spans: Span, width: int = 60, events: bool = False, left_out: int = 0) -> list[str]:
    trace = Trace(trace_id="f" * 32, spans=spans, left_out=left_out)
    moment = BEGIN + timedelta(seconds=10)
    return [line.plain.rstrip() for line in lines(trace, moment, width, with_events=events)]


TASK = span("t", None, 0, 10, kind=SpanKind.TASK, outcome="succeeded")
FIRST = span("attempt 1", "t", 0, 4, kind=SpanKind.ATTEMPT, agent="a", node="n", outcome="queued", note="it crashed")
AGAIN = (SpanLink(id="attempt 1", why="retry"),)
SECOND = span("attempt 2", "t", 5, 10, kind=SpanKind.ATTEMPT, agent="b", node="n", links=AGAIN)


def test_each_span_stands_below_the_one_that_it_is_a_part_of() -> None:
    other = span("other", "nobody known", 7, 9, kind=SpanKind.TASK, task_id="other")
    shown = drawn(TASK, other, SECOND, FIRST, span("turn", "attempt 1", 1, 4), width=64)
    assert shown[0].startswith(f"trace {'f' * 32}: 2 tasks, 10 s from ")
    names = ("t: t", "attempt 1", "it crashed", "turn", "attempt 2", "retry of attempt 1", "other: other")
    assert [name for line, name in zip(shown[1:], names, strict=True) if not line.lstrip().startswith(name)] == []
    assert [len(line) - len(line.lstrip()) for line in shown[1:]] == [0, 2, 6, 4, 2, 6, 0]


def test_a_bar_lies_where_its_time_lies() -> None:
    shown = drawn(TASK, span("turn", "t", 5, 10), width=38)
    bars = [line[-12:] for line in shown[1:]]
    assert bars == ["█" * 12, " " * 6 + "▒" * 6]


def test_what_goes_on_lasts_until_now_and_says_so() -> None:
    (line,) = drawn(span("t", None, 4, None, kind=SpanKind.TASK))[1:]
    assert "6.00 s…" in line


def test_an_adoption_is_always_told_and_other_events_if_they_are_asked_for() -> None:
    told = (SpanEvent(at=BEGIN, name="adopted"), SpanEvent(at=BEGIN, name="running", note="progress: half\nway"))
    turn = span("turn", "t", 0, 10, events=told)
    assert sum("adopted" in line or "half" in line for line in drawn(TASK, turn)) == 1
    assert any(line.endswith("running: progress: half␊way") for line in drawn(TASK, turn, events=True))


def test_it_says_how_many_tasks_are_not_drawn() -> None:
    assert ": 1 task, and 3 more that are not drawn, 10 s from" in drawn(TASK, left_out=3)[0]

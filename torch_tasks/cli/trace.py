"""``torch-tasks trace``: how a task spent its time, drawn from Torch's own record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import click
from rich.text import Text

from torch_tasks.cli.names import TASK
from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json, is_terminal, local, print_styled, terminal_width
from torch_tasks.client import Torch
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.fields import now
from torch_tasks.model.message_trace import MessagePhase
from torch_tasks.model.trace import Span, SpanKind, Trace, as_tree
from torch_tasks.visible_text import one_line, visible

_LONGEST_NOTE = 160
_NARROWEST_BAR, _WIDEST_BAR = 12, 60
_COLOURS = {
    SpanKind.TASK: "bold",
    SpanKind.WAIT: "yellow",
    SpanKind.ATTEMPT: "cyan",
    SpanKind.PHASE: "blue",
    SpanKind.MESSAGE: "magenta",
    SpanKind.CHECKIN: "green",
}
_PARTS = frozenset({SpanKind.WAIT, SpanKind.PHASE})


@click.command()
@click.argument("task_id", metavar="TASK", type=TASK)
@click.option("--events", is_flag=True, help="Also print what was noted in each phase, with its time.")
@JSON
def trace(task_id: str, events: bool, json_wanted: bool) -> None:
    """Draw how TASK, and each other task and message of its trace, spent its time: waits, attempts, and their phases.

    It is drawn from what Torch itself has noted, whether or not spans are sent to a collector.
    """
    found = Torch().task(task_id).trace()
    if json_wanted:
        as_json(found)
        return
    for line in lines(found, now(), terminal_width() if is_terminal() else 120, with_events=events):
        print_styled(line)


def lines(found: Trace, moment: datetime, width: int, *, with_events: bool = False) -> Iterator[Text]:
    """The timeline, for a terminal of this width; what goes on lasts until this moment."""
    tree = as_tree(found.spans)
    spans = [span for _, span in tree]
    begin = min(span.begin for span in spans)
    end = max(max(span.end or moment for span in spans), begin)
    names = {span.id: "  " * depth + _name(span) for depth, span in tree}
    widest = max(map(len, names.values()))
    bar = min(max(width - widest - 12, _NARROWEST_BAR), _WIDEST_BAR)
    tasks = len({span.task_id for span in spans if span.task_id})
    messages = len({span.message_id for span in spans if span.kind is SpanKind.MESSAGE})
    also = f", {messages} message{'s'[: messages > 1]}" if messages else ""
    more = f", and {found.left_out} more that are not drawn" if found.left_out else ""
    whole = describe_duration((end - begin).total_seconds())
    yield Text(f"trace {found.trace_id}: {tasks} task{'s'[: tasks > 1]}{also}{more}, {whole} from {local(begin)}")
    by_id: Mapping[str, Span] = {span.id: span for span in spans}
    for depth, span in tree:
        drawn = _bar(span, begin, end, moment, bar)
        seconds = _seconds(span, moment)
        yield Text.assemble(f"{names[span.id]:<{widest}} {seconds:>9}  ", (drawn, _COLOURS[span.kind]))
        for words in _said(span, by_id, with_events=with_events):
            yield Text(f"{' ' * (2 * depth + 4)}{words}", style="red" if span.failed else "dim")


def _name(span: Span) -> str:
    match span.kind:
        case SpanKind.TASK:
            return one_line(visible(f"{span.task_id}: {span.name}"), 44) + (f" {span.outcome}" if span.outcome else "")
        case SpanKind.ATTEMPT:
            return f"{span.name} {span.agent} on {span.node}" + (f" {span.outcome}" if span.outcome else "")
        case SpanKind.MESSAGE:
            return f"{span.name} {span.sender} to {span.agent}" + (f" {span.outcome}" if span.outcome else "")
        case SpanKind.CHECKIN:
            return f"{span.name} by {span.sender} {span.outcome}"
    return f"{span.name} by {span.agent}" if span.name == MessagePhase.ANSWER else span.name


def _seconds(span: Span, moment: datetime) -> str:
    seconds = max(((span.end or moment) - span.begin).total_seconds(), 0.0)
    words = f"{seconds:.2f} s" if seconds < 10 else describe_duration(seconds)
    return words if span.end else f"{words}…"


def _bar(span: Span, begin: datetime, end: datetime, moment: datetime, width: int) -> str:
    whole = max((end - begin).total_seconds(), 1e-6)
    first = int((span.begin - begin).total_seconds() / whole * width)
    last = int(((span.end or moment) - begin).total_seconds() / whole * width)
    first = min(max(first, 0), width - 1)
    length = min(max(last - first, 1), width - first)
    return " " * first + ("▒" if span.kind in _PARTS else "█") * length


def _said(span: Span, by_id: Mapping[str, Span], *, with_events: bool) -> Iterator[str]:
    for link in span.links:
        elsewhere = f"{link.why} in trace {link.trace_id}" if link.trace_id else link.why
        yield f"{link.why} of {by_id[link.id].name}" if link.id in by_id else elsewhere
    if span.note and span.kind is not SpanKind.PHASE:
        yield one_line(span.note, _LONGEST_NOTE)
    for event in span.events:
        if with_events or event.name == "adopted":
            note = f": {one_line(event.note, _LONGEST_NOTE)}" if event.note else ""
            yield f"{event.at.astimezone():%H:%M:%S.%f}"[:-3] + f" {event.name}{note}"

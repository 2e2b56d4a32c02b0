"""``torch-tasks summary``: the morning view."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

import click
from rich.text import Text

from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import as_json, print_styled, shown, terminal_width
from torch_tasks.link import perform
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.task import TaskState
from torch_tasks.monitoring.summary import MOST_TASKS, FleetSummary, TaskSummary
from torch_tasks.operations import fleet as operations

_MARKS = {TaskState.SUCCEEDED: "✓", TaskState.FAILED: "✗", TaskState.DEAD: "✗", TaskState.CANCELLED: "-"}
_GOES_ON = "…"
_NOT_BELIEVED = "not believed"
_COLOURS = {TaskState.SUCCEEDED: "green", TaskState.FAILED: "red", TaskState.DEAD: "red", TaskState.WAITING: "yellow"}


@click.command()
@click.option("--since", type=Duration(), default=12 * 3600, help="How far back, as 90m or 2d (default: 12h).")
@click.option("--markdown", is_flag=True, help="Print it as Markdown, for a chat or a file.")
@JSON
def summary(since: float, markdown: bool, json_wanted: bool) -> None:
    """Show what waits for you, then what became of each task: result, check, changes, branch, time, tokens.

    Lists the tasks that ended in this time and those that have not ended.
    """
    night = perform(operations.summary, operations.Since.build(seconds=since))
    if json_wanted:
        as_json(night)
    elif markdown:
        click.echo("\n".join(_markdown(night)))
    else:
        for line in _lines(night, terminal_width()):
            print_styled(line)


def _heading(night: FleetSummary) -> str:
    found = [f"{count} {state}" for state, count in night.counts.items()]
    found += [f"{night.not_believed} {_NOT_BELIEVED}"] if night.not_believed else []
    counts = ", ".join(found) or "no tasks"
    since, length = night.since.astimezone(), describe_duration((night.until - night.since).total_seconds())
    return " · ".join([f"Since {since:%a %d %b %H:%M %Z} ({length}): {counts}", *_price(night.tokens, night.cost_usd)])


def _price(tokens: int, cost_usd: float | None) -> Iterator[str]:
    if tokens:
        yield f"{_count(tokens)} tokens"
    if cost_usd:
        yield f"${cost_usd:.2f}"


def _count(number: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def _state(task: TaskSummary) -> str:
    return f"{task.state}, {_NOT_BELIEVED}" if task.forged else str(task.state)


def _facts(task: TaskSummary) -> list[str]:
    """What is known of a task's result, each in a few words."""
    check = {True: "check passed", False: "check failed", None: ""}[task.check]
    changes = str(task.changes) if task.changes else ""
    seconds = describe_duration(task.seconds) if task.seconds is not None else ""
    agent = f"by {task.agent}" if task.agent else ""
    facts = (agent, seconds, check, changes, task.branch or "", *_price(task.tokens, task.cost_usd))
    return [fact for fact in facts if fact]


def _lines(night: FleetSummary, width: int) -> Iterator[Text]:
    yield _wrapped("", _heading(night), width, "bold")
    if night.needs:
        yield Text("\nWAITS FOR YOU", style="bold")
    for need in night.needs:
        yield _wrapped("! ", need.text, width, "yellow")
        yield _wrapped("    ", need.do, width, "dim")
    if night.tasks:
        yield Text("\nTASKS", style="bold")
    for task in night.tasks:
        mark, colour = ("?", "red") if task.forged else (_MARKS.get(task.state, _GOES_ON), _COLOURS.get(task.state, ""))
        state = f" ({_state(task)})" if task.forged or task.state is not TaskState.SUCCEEDED else ""
        yield _wrapped(f"{mark} ", f"{shown(task.id)}  {task.title}{state}", width, colour)
        if facts := _facts(task):
            yield _wrapped("    ", " · ".join(facts), width, "dim")
        if task.detail:
            yield _wrapped("    ", task.detail, width)
    if night.is_cut:
        yield Text(f"\nOnly the {MOST_TASKS} tasks accepted last were looked at.", style="dim")


def _wrapped(mark: str, text: str, width: int, style: str = "") -> Text:
    """A text in lines of this width, below each other behind the mark."""
    lines = wrap(text, width - len(mark), break_long_words=False, break_on_hyphens=False) or [""]
    return Text(mark + f"\n{' ' * len(mark)}".join(lines), style=style)


def _markdown(night: FleetSummary) -> Iterator[str]:
    yield f"## {_plain(_heading(night))}"
    if night.needs:
        yield "\n### Waits for you\n"
    for need in night.needs:
        yield f"- {_plain(need.text)}: `{need.do}`"
    if night.tasks:
        yield "\n### Tasks\n\n| task | result | what it says |\n|---|---|---|"
    for task in night.tasks:
        facts = _plain(" · ".join([_state(task), *_facts(task)]))
        yield f"| {_plain(task.title)} `{task.id}` | {facts} | {_plain(task.detail)} |"


def _plain(text: str) -> str:
    """The text in one line, in which Markdown reads no mark of its own."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|~" else char for char in " ".join(text.split()))

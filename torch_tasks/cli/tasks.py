"""``torch-tasks run | tasks | task | answer | handoff | cancel | dead``."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.status import Status
from rich.text import Text

from torch_tasks.caller import caller
from torch_tasks.cli.names import AGENT, KIND, ROLE, SKILL, TASK, role_hint, skill_hint
from torch_tasks.cli.options import JSON, Duration, text_of
from torch_tasks.cli.output import (
    ago,
    as_fields,
    as_json,
    as_json_or_line,
    as_table,
    local,
    shown,
    waiting,
    wanted,
)
from torch_tasks.cli.tables import Column, cut, state
from torch_tasks.cli.task_files import run_file
from torch_tasks.client import Task, Torch
from torch_tasks.errors import BrokerAway, TaskEnded, TaskNotFinished
from torch_tasks.link import perform
from torch_tasks.model.address import far_agent
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.options import FieldOptions, OneOf
from torch_tasks.model.routing import believed_state
from torch_tasks.model.task import FailureKind, HistoryEntry, Priority, TaskRecord, TaskResult, TaskSpec, TaskState
from torch_tasks.operations import tasks as operations
from torch_tasks.visible_text import one_line, visible

TASK_OPTIONS = FieldOptions(
    TaskSpec,
    without=("prompt", "deadline", "context", "metadata"),
    types={"timeout": Duration(), "role": ROLE, "agent": AGENT, "skills": SKILL, "after": TASK},
)
FAILED, UNROUTABLE, TIMED_OUT = 1, 3, 124
_COLUMNS = (
    Column("ID"),
    state(),
    cut("FOR", spare=2),
    Column("PRIORITY", usual=Priority.NORMAL),
    Column("AGENT"),
    Column("TRIES", spare=4),
    Column("ACCEPTED", spare=3),
    cut("TITLE", least=16),
)
_LONGEST_NOTE = 200
_PATIENCE = 2.0
"""A new agent takes this long to be known."""
_HANDOVER_SECONDS = 30.0


@click.command(params=TASK_OPTIONS.parameters())
@click.argument("prompt", nargs=-1)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="Enqueue all tasks of a file: one prompt a line (.txt), or a list of tasks with their fields (.yaml). The "
    "other options are for those that do not say otherwise.",
)
@click.option("--kind", "agent_kind", type=KIND, help="Only an agent of this kind: claude, codex, shell, …")
@click.option("--spool", is_flag=True, help="If the broker is away, keep the task on this disk and send it later.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the answer.")
@click.option("--wait-timeout", type=Duration(or_zero=True), help="With --wait: stop waiting then; the task goes on.")
@click.option(
    "--unroutable-after",
    type=Duration(or_zero=True),
    help="Exit with code 3 if by then no online agent can do the task; it stays queued.",
)
@JSON
def run(
    prompt: tuple[str, ...],
    path: Path | None,
    wait: bool,
    wait_timeout: float | None,
    unroutable_after: float | None,
    json_wanted: bool,
    **parameters: Any,
) -> None:
    """Hand a task to the fleet and print its id; with --wait its answer.

    PROMPT is what the agent shall do; its words are joined by one space. `-` reads it from standard input.
    """
    fields = TASK_OPTIONS.take(parameters)  # leaves --kind and --spool
    if path:
        if prompt or "id" in fields or unroutable_after is not None:
            raise click.UsageError(
                "--file takes neither a PROMPT nor --id nor --unroutable-after: the file has the tasks"
            )
        run_file(path, fields, wait, wait_timeout, json_wanted, **parameters)
        return
    if not prompt:
        raise click.MissingParameter(param_type="argument", param_hint="'PROMPT...'")
    handed = Torch().enqueue(text_of(prompt), **fields, **parameters)
    if not wait:
        as_json_or_line(json_wanted, {"id": handed.id, "spooled": handed.spooled}, handed.id)
    _say_why_it_waits(handed, fields.get("agent"), look=not wait and unroutable_after is None)
    if unroutable_after is not None:
        _give_up_if_unroutable(handed, unroutable_after)
    if wait:
        _end_with(_await_end(handed, wait_timeout), json_wanted)


def _say_why_it_waits(handed: Task, agent: str | None, *, look: bool) -> None:
    """Where the task waits if it is not with its fleet yet; else, with ``look``, whether anybody can do it."""
    if handed.spooled:
        far = far_agent(agent)
        brought = f"a node worker or server here has brought it to fleet {far.fleet}" if far else ""
        until = brought or "the broker is back, which is away"
        click.echo(f"The task waits on this machine's disk until {until}.", err=True)
    elif look:
        with suppress(BrokerAway):  # the task is accepted all the same
            if (record := handed.record()).unroutable:
                click.echo(f"{_no_agent_can(record)}. The task waits until one appears.", err=True)


def _no_agent_can(record: TaskRecord) -> str:
    spec = record.spec
    named = ", ".join(f"{skill}{skill_hint(skill)}" for skill in spec.skills)
    skills = f"skill{'s' if len(spec.skills) > 1 else ''} {named}" if named else ""
    role = f"role {spec.role}{role_hint(spec.role)}" if spec.role else ""
    needed = " and ".join(filter(None, (role, skills)))
    return f"No online agent can do this task: it needs {f'agent {spec.agent}' if spec.agent else needed or 'an agent'}"


def _give_up_if_unroutable(handed: Task, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with waiting(f"task {handed.id}: looking for an agent that can do it"):
        while (record := handed.record()).unroutable:
            if time.monotonic() >= deadline:
                click.echo(
                    f"Error: task {handed.id} is unroutable. {_no_agent_can(record)}. It stays queued and starts when "
                    f"one appears; 'torch-tasks cancel {handed.id}' takes it back",
                    err=True,
                )
                sys.exit(UNROUTABLE)
            time.sleep(min(0.2, seconds))


def _end_with(result: TaskResult, json_wanted: bool) -> None:
    if json_wanted:
        as_json(result)
    else:
        click.echo(result.answer, nl=not result.answer.endswith("\n") and bool(result.answer))
    if result.succeeded:
        return
    click.echo(f"Error: {result.summary}", err=True)
    timed_out = result.error is not None and result.error.kind in {FailureKind.TIMEOUT, FailureKind.DEADLINE}
    sys.exit(TIMED_OUT if timed_out else FAILED)


def _await_end(task: Task, timeout: float | None) -> TaskResult:
    """Wait for the task's end and print on stderr, once, what it waits for. Ctrl-C ends the command, not the task."""
    begun, printed = time.monotonic(), ""
    try:
        with waiting(f"task {task.id}") as line:
            for record in task.follow(timeout):
                why = _why_it_waits(record)
                if why and (time.monotonic() - begun >= _PATIENCE or not record.unroutable) and why != printed:
                    printed = why
                    _print_above(f"task {task.id} {why}", line)
                if line:
                    line.update(Text(visible(f"task {task.id}: {_status_line(record)}")))
        if not record.state.ended:
            raise TaskNotFinished(
                f"task {task.id} is {record.state} after {describe_duration(timeout or 0)}; it goes on, ask again later"
            )
        return task.result(timeout=0)
    except KeyboardInterrupt:
        click.echo(f"task {task.id} goes on; 'torch-tasks cancel {task.id}' ends it", err=True)
        sys.exit(128 + signal.SIGINT)


def _print_above(text: str, line: Status | None) -> None:
    if line:
        line.console.print(Text(visible(text)), soft_wrap=True)
    else:
        click.echo(text, err=True)


def _why_it_waits(record: TaskRecord) -> str:
    if record.unroutable:
        return f"is unroutable. {_no_agent_can(record)}; it starts when one appears"
    if record.state is TaskState.PARKED:
        return f"is parked: {record.note or 'an account rests'}"
    if record.state is TaskState.PENDING:
        return f"waits {record.waits}"
    if record.state is TaskState.QUEUED and record.waits:
        return f"waits: {record.waits}"
    if record.state is not TaskState.WAITING:
        return ""
    if record.question is None:
        return f"waits: {record.note or 'it does not say for what'}"
    choices = [f"\n  {choice}" for choice in record.question.numbered]
    return f"waits: {record.question.text}{''.join(choices)}\nAnswer it: torch-tasks answer {record.spec.id} CHOICE"


def _status_line(record: TaskRecord) -> str:
    who = f" on {record.agent}" if record.agent and record.state is not TaskState.QUEUED else ""
    note = f": {one_line(record.note, _LONGEST_NOTE)}" if record.note and record.state is TaskState.RUNNING else ""
    return f"{record.state}{who}{note}"


@click.command()
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--state", "states", multiple=True, type=OneOf(TaskState), help="Only tasks in this state.")
@JSON
def tasks(limit: int, states: tuple[str, ...], json_wanted: bool) -> None:
    """List the latest tasks, newest first."""
    records = Torch().tasks(limit, [TaskState(state) for state in states])
    if json_wanted:
        as_json(records)
        return
    as_table(_COLUMNS, map(_row, records))


def _state(record: TaskRecord) -> str:
    return f"{record.state} (unroutable)" if record.unroutable else believed_state(record)


def _row(record: TaskRecord) -> tuple[Any, ...]:
    spec = record.spec
    task, agent, accepted = shown(spec.id), record.agent or "", ago(record.created_at)
    return task, _state(record), wanted(record), spec.priority, agent, record.attempts, accepted, spec.title


@click.command()
@click.argument("task_id", type=TASK)
@JSON
def task(task_id: str, json_wanted: bool) -> None:
    """Show one task: its prompt, its agent, its history, the evidence that it was done, and its answer."""
    one = Torch().task(task_id)
    record, history = one.record(), one.history()
    if json_wanted:
        as_json(record.model_dump(mode="json") | {"history": history})
        return
    result = record.result
    asked = _question_lines(record) if record.question and record.state is TaskState.WAITING else []
    again = f", delivered again {record.deliveries} times" if record.deliveries else ""
    lines = [
        ("id", record.spec.id),
        ("state", _state(record)),
        ("forged", record.forged or ""),
        ("for", f"{wanted(record)}, {record.spec.priority}"),
        ("agent", f"{record.agent} on {record.node}" if record.agent else "none yet"),
        ("attempts", f"{record.attempts}{again}"),
        ("accepted", local(record.created_at)),
        ("ended", local(record.finished_at) or "not yet"),
        ("waits", record.waits or ""),
        ("note", record.note if record.note and not asked else ""),
        *asked,
        ("error", result.error.message if result and result.error else ""),
        *(("history", _history_line(entry)) for entry in history),
        *(("evidence", f"{'✓' if item.passed else '✗'} {item.detail}") for item in (result.evidence if result else ())),
        ("usage", _cost(result)),
        ("answer in", result.answer_file or "" if result else ""),
    ]
    as_fields(lines, 11)
    click.echo(f"\n{record.spec.prompt}")
    if result:
        click.echo(f"\n{result.answer}", nl=not result.answer.endswith("\n"))


def _question_lines(record: TaskRecord) -> list[tuple[str, str]]:
    assert record.question
    choices = [("choice", choice) for choice in record.question.numbered]
    reply = "CHOICE,CHOICE…" if record.question.several else "CHOICE"
    return [("asks", record.question.text), *choices, ("answer", f"torch-tasks answer {record.spec.id} {reply}")]


def _cost(result: TaskResult | None) -> str:
    if result is None or result.usage is None:
        return ""
    usage = result.usage
    cost = f", {usage.cost_usd:.4f} USD" if usage.cost_usd is not None else ""
    return f"{usage.input_tokens:,} tokens in ({usage.cached_tokens:,} cached), {usage.output_tokens:,} out{cost}"


def _history_line(entry: HistoryEntry) -> str:
    who = f" {entry.agent} on {entry.node}" if entry.agent else ""
    said = entry.note or (entry.step.replace("_", " ") if entry.step else "")
    return f"{local(entry.at)} {entry.state}{who}" + (f": {said}" if said else "")


@click.command()
@click.argument("task_ids", nargs=-1, required=True, type=TASK)
@JSON
def cancel(task_ids: tuple[str, ...], json_wanted: bool) -> None:
    """Cancel tasks: at once if no agent has begun them, else their agents are interrupted."""
    failed, states = False, []
    for task_id in task_ids:
        handed = Torch().task(task_id)
        before = handed.cancel()
        if before.ended:
            click.echo(f"Error: task {task_id} had ended already: {before}", err=True)
            failed = True
            states.append({"id": task_id, "state": before})
            continue
        try:
            with waiting(f"task {task_id}: interrupting its agent"):
                after = handed.result(timeout=15).status
        except TaskNotFinished:
            after = handed.status
        states.append({"id": task_id, "state": after})
        if not json_wanted:
            click.echo(f"task {task_id} {after}" + ("" if after.ended else ": its agent has been ordered to stop"))
    if json_wanted:
        as_json(states)
    sys.exit(FAILED if failed else 0)


@click.command()
@click.argument("task_id", metavar="TASK", type=TASK)
@click.argument("reply")
@JSON
def answer(task_id: str, reply: str, json_wanted: bool) -> None:
    """Answer what the agent of a waiting TASK, or an AGENT held up at its start, asks: a choice's number, or a text."""
    with waiting(f"{task_id}: sending the answer to the agent"):
        outcome = Torch().task(task_id).answer(reply)
    as_json_or_line(json_wanted, {"id": task_id, "outcome": outcome}, str(outcome))


@click.command()
@click.argument("task_id", metavar="TASK", type=TASK)
@click.argument("to", metavar="AGENT", type=AGENT)
@click.option("--note", default="", help="What the next agent should know: what is done, what is left.")
@click.option("--question", "questions", multiple=True, help="An open question; repeat for more.")
@JSON
def handoff(task_id: str, to: str, note: str, questions: tuple[str, ...], json_wanted: bool) -> None:
    """Hand TASK over to AGENT, or to any agent of the role AGENT. Its present agent is interrupted first."""
    handover = Torch().task(task_id).handoff(to, note, questions)
    if handover.owner is None:
        as_json_or_line(json_wanted, handover, f"task {task_id} waits for {handover.to}")
        return
    if handover.owner == caller().agent:
        line = f"task {task_id} goes to {handover.to}; end your turn now, it is not yours any more"
        as_json_or_line(json_wanted, handover, line)
        return
    with waiting(f"task {task_id}: waiting until {handover.owner} has stopped working on it"):
        end = perform(operations.handed_over, operations.AwaitHandover(task_id=task_id, seconds=_HANDOVER_SECONDS))
    if end.record.state.ended and end.record.attempts == handover.attempt:
        raise TaskEnded(f"task {task_id} {end.record.state} before {handover.owner} could hand it over")
    later = (
        "" if end.given_up else f" as soon as {handover.owner}, which is being interrupted, has stopped working on it"
    )
    as_json_or_line(json_wanted, handover, f"task {task_id} goes to {handover.to}{later}")

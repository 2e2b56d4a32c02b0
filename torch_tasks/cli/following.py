"""What somebody who waits for a task should know of it meanwhile."""

from __future__ import annotations

import signal
import sys
import time

import click
from rich.status import Status
from rich.text import Text

from torch_tasks.cli.output import one_line, waiting, wanted
from torch_tasks.client import Task
from torch_tasks.errors import TaskNotFinished
from torch_tasks.model.task import TaskRecord, TaskResult, TaskState

_LONGEST = 200
_PATIENCE = 2.0
"""An agent that has just come takes this long to be known."""


def await_end(task: Task, timeout: float | None) -> TaskResult:
    """Wait for the task's end. What it waits for, as soon as that is not just a free agent, is said on stderr, once.

    Ctrl-C ends the command, not the task.
    """
    try:
        return _await_end(task, timeout)
    except KeyboardInterrupt:
        click.echo(f"task {task.id} goes on; 'torch-tasks cancel {task.id}' ends it", err=True)
        sys.exit(128 + signal.SIGINT)


def _await_end(task: Task, timeout: float | None) -> TaskResult:
    begun, told = time.monotonic(), ""
    with waiting(f"task {task.id}") as line:
        for record in task.follow(timeout):
            said = _hindrance(record)
            if said and (time.monotonic() - begun >= _PATIENCE or not record.unroutable) and said != told:
                told = said
                _say(f"task {task.id} {said}", line)
            if line:
                line.update(Text(f"task {task.id}: {_standing(record)}"))
    if not record.state.ended:
        raise TaskNotFinished(f"task {task.id} is {record.state} after {timeout:g} s; it goes on, ask again later")
    return task.result(timeout=0)


def _say(text: str, line: Status | None) -> None:
    if line:
        line.console.print(Text(text), soft_wrap=True)
    else:
        click.echo(text, err=True)


def _hindrance(record: TaskRecord) -> str:
    """What keeps the task from going on."""
    if record.unroutable:
        return f"is unroutable: no live agent serves {wanted(record)}; it starts when one appears"
    if record.state is TaskState.PARKED:
        return f"is parked: {record.note or 'an account rests'}"
    if record.state is TaskState.QUEUED and record.waits:
        return f"waits: {record.waits}"
    if record.state is not TaskState.WAITING:
        return ""
    if record.question is None:
        return f"waits: {record.note or 'it does not say for what'}"
    choices = [f"\n  {number} {text}" for number, text in enumerate(record.question.choices, 1)]
    return f"waits: {record.question.text}{''.join(choices)}\nAnswer it: torch-tasks answer {record.spec.id} CHOICE"


def _standing(record: TaskRecord) -> str:
    who = f" on {record.agent}" if record.agent and record.state is not TaskState.QUEUED else ""
    note = f": {one_line(record.note, _LONGEST)}" if record.note and record.state is TaskState.RUNNING else ""
    return f"{record.state}{who}{note}"

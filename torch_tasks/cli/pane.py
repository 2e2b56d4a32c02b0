"""``torch-tasks done | fail | progress``: an agent reports on its task, from its pane."""

from __future__ import annotations

import json
from pathlib import Path

import click

from torch_tasks.caller import caller
from torch_tasks.cli.options import text_of
from torch_tasks.errors import NotInPane
from torch_tasks.machine.agent_folder import DONE, FAIL, PROGRESS, report
from torch_tasks.state_folder import EVENTS, JOURNAL
from torch_tasks.system.files import usable


@click.command()
@click.argument("task_id", metavar="TASK")
@click.argument("text", nargs=-1)
def done(task_id: str, text: tuple[str, ...]) -> None:
    """Report TASK as done; TEXT is the answer. `-` reads it from standard input."""
    _report(DONE, task_id, text)


@click.command()
@click.argument("task_id", metavar="TASK")
@click.argument("text", nargs=-1, required=True)
def fail(task_id: str, text: tuple[str, ...]) -> None:
    """Report that TASK cannot be done; TEXT is the reason."""
    _report(FAIL, task_id, text)


@click.command()
@click.argument("task_id", metavar="TASK")
@click.argument("text", nargs=-1, required=True)
def progress(task_id: str, text: tuple[str, ...]) -> None:
    """Report progress on TASK; TEXT goes into the task's history."""
    _report(PROGRESS, task_id, text)


def _report(name: str, task_id: str, text: tuple[str, ...]) -> None:
    folder = caller().folder
    if folder is None:
        raise NotInPane(
            "this is not an agent's pane: TORCH_AGENT_ID and TORCH_STATE_DIR are not set. Only the agent that works on "
            "a task reports on it; 'torch-tasks cancel' ends a task"
        )
    _require_current(folder, task_id)
    words = text_of(text)
    with usable(folder / EVENTS):
        report(folder, name, task_id, words)


def _require_current(folder: Path, task_id: str) -> None:
    """Refuse a report of a task that the agent does not work on: it would count for the task it works on."""
    try:
        journal = json.loads((folder / JOURNAL).read_bytes())
    except (OSError, ValueError) as error:
        raise NotInPane(f"agent {folder.name} has no journal in {folder}: {error}") from None
    if journal["kind"] == "shell":
        raise NotInPane(
            "a shell agent does not report: its task ends with its script, whose exit code says whether it was done"
        )
    current = (journal.get("current") or {}).get("task_id")
    if current != task_id:
        now_at = f"it works on {current}; report that one" if current else "it works on no task"
        raise NotInPane(f"agent {folder.name} does not work on task {task_id}; {now_at}")

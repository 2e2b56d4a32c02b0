"""The operations of an agent in its pane: what it reports on its task."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from pydantic import Field

from torch_tasks.caller import caller
from torch_tasks.errors import NotInPane
from torch_tasks.machine.agent_folder import DONE, FAIL, PROGRESS, report
from torch_tasks.model.fields import TaskId, Text
from torch_tasks.operations.operation import Access, Request, operation
from torch_tasks.security.rights import Right
from torch_tasks.state_folder import EVENTS, JOURNAL
from torch_tasks.system.files import usable


class Report(Request):
    """What an agent reports on the task that it works on."""

    task_id: TaskId
    text: Text = Field("", description="The answer, the reason, or how far it is.")
    id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex, description="The same id twice is one report.")


@operation("pane.done", Right.REPORT, access=Access.WRITE, needs_broker=False)
def done(asked: Report) -> None:
    """Report the task that the agent works on as done."""
    _report(DONE, asked)


@operation("pane.fail", Right.REPORT, access=Access.WRITE, needs_broker=False)
def fail(asked: Report) -> None:
    """Report that the task that the agent works on cannot be done."""
    _report(FAIL, asked)


@operation("pane.progress", Right.REPORT, access=Access.WRITE, needs_broker=False)
def progress(asked: Report) -> None:
    """Report how far the task is that the agent works on; the text goes into the task's history."""
    _report(PROGRESS, asked)


def _report(name: str, asked: Report) -> None:
    folder = caller().folder
    if folder is None:
        raise NotInPane(
            "only the agent that works on a task reports on it, from its pane; 'torch-tasks cancel' ends a task"
        )
    _require_current(folder, asked.task_id)
    with usable(folder / EVENTS):
        report(folder, name, asked.task_id, asked.text, asked.id)


def _require_current(folder: Path, task_id: str) -> None:
    """Refuse a report of a task that the agent does not work on: it would count for the task it works on.

    Whose task it is, the agent's own journal says: a report is taken while the broker is away, too.
    """
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

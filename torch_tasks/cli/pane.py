"""``torch-tasks done | fail | progress``: an agent reports on its task, from its pane."""

from __future__ import annotations

import click

from torch_tasks.cli.options import text_of
from torch_tasks.errors import NotInPane
from torch_tasks.link.desk import desk_of_this_pane


@click.command()
@click.argument("task_id", metavar="TASK")
@click.argument("text", nargs=-1)
def done(task_id: str, text: tuple[str, ...]) -> None:
    """Report TASK as done; TEXT is the answer. `-` reads it from standard input."""
    _report("pane.done", task_id, text)


@click.command()
@click.argument("task_id", metavar="TASK")
@click.argument("text", nargs=-1, required=True)
def fail(task_id: str, text: tuple[str, ...]) -> None:
    """Report that TASK cannot be done; TEXT is the reason."""
    _report("pane.fail", task_id, text)


@click.command()
@click.argument("task_id", metavar="TASK")
@click.argument("text", nargs=-1, required=True)
def progress(task_id: str, text: tuple[str, ...]) -> None:
    """Report progress on TASK; TEXT goes into the task's history."""
    _report("pane.progress", task_id, text)


def _report(operation: str, task_id: str, text: tuple[str, ...]) -> None:
    desk = desk_of_this_pane()
    if desk is None:
        raise NotInPane(
            "this is not an agent's pane: TORCH_DESK is not set. Only the agent that works on a task reports on it; "
            "'torch-tasks cancel' ends a task"
        )
    desk.call(operation, {"task_id": task_id, "text": text_of(text)})

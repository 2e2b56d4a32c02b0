"""``torch-tasks handoff``: for people, and for an agent that cannot go on with its task."""

from __future__ import annotations

import os

import click

from torch_tasks.broker.connection import broker_errors
from torch_tasks.cli.ids import known_task
from torch_tasks.cli.output import waiting
from torch_tasks.client import Torch
from torch_tasks.errors import TaskEnded
from torch_tasks.tasks.handover import await_handover

_SECONDS = 30.0


@click.command()
@click.argument("task_id", metavar="TASK", type=known_task)
@click.argument("to", metavar="AGENT")
@click.option("--note", default="", help="What the successor should know: what is done, what is left.")
@click.option("--question", "questions", multiple=True, help="What is open; repeat for more.")
def handoff(task_id: str, to: str, note: str, questions: tuple[str, ...]) -> None:
    """Hand TASK over to AGENT, or to whoever has the role AGENT. Who works on it is interrupted and lets go first."""
    handover = Torch().task(task_id).handoff(to, note, questions)
    if handover.owner is None:
        click.echo(f"task {task_id} waits for {handover.to}")
        return
    if handover.owner == os.environ.get("TORCH_AGENT_ID"):
        click.echo(f"task {task_id} goes to {handover.to}; end your turn now, it is not yours any more")
        return
    with waiting(f"task {task_id}: {handover.owner} lets go of it"), broker_errors():
        record, gone = await_handover(task_id, _SECONDS)
    if record.state.ended and record.attempts == handover.attempt:
        raise TaskEnded(f"task {task_id} {record.state} before {handover.owner} had let go of it")
    later = "" if gone else f" as soon as {handover.owner}, which was told, lets go of it"
    click.echo(f"task {task_id} goes to {handover.to}{later}")

"""``torch-tasks answer``."""

from __future__ import annotations

import click

from torch_tasks.cli.ids import known_task
from torch_tasks.cli.output import waiting
from torch_tasks.client import Torch


@click.command()
@click.argument("task_id", metavar="TASK", type=known_task)
@click.argument("reply")
def answer(task_id: str, reply: str) -> None:
    """Answer what the agent of a waiting TASK asks: REPLY is the number of a choice or, where it takes one, a text."""
    task = Torch().task(task_id)
    with waiting(f"task {task_id}: telling its agent"):
        said = task.answer(reply)
    click.echo(said)

"""``torch-tasks dead list | show | replay | drop``."""

from __future__ import annotations

import click

from torch_tasks.broker.connection import broker_errors
from torch_tasks.cli.ids import known_task, shown
from torch_tasks.cli.output import ago, as_json, as_table, wanted
from torch_tasks.cli.tasks import task as show_task
from torch_tasks.client import Torch
from torch_tasks.fleet import fleet
from torch_tasks.model.task import TaskRecord
from torch_tasks.tasks.dead_letters import DeadLetters

_IDS = click.argument("task_ids", nargs=-1, required=True, type=known_task)


@click.group()
def dead() -> None:
    """Tasks that are not tried any more unless you say so."""


@dead.command(name="list")
@click.option("--json", "json_wanted", is_flag=True, help="For programs.")
def list_dead(json_wanted: bool) -> None:
    """List them, the latest first."""
    records = Torch().dead()
    if json_wanted:
        as_json(records)
        return
    as_table(("ID", "FOR", "TRIES", "DIED", "WHY", "PROMPT"), [_row(record) for record in records])
    with broker_errors():
        others = set(DeadLetters(fleet()).ids()) - {record.spec.id for record in records}
    for message_id in sorted(others):
        click.echo(f"{message_id} (a message of another Celery task)")


def _row(record: TaskRecord) -> tuple[object, ...]:
    why = record.result.error.message if record.result and record.result.error else record.note or ""
    return shown(record.spec.id), wanted(record), record.attempts, ago(record.finished_at), why, record.spec.title


dead.add_command(show_task, name="show")


@dead.command()
@_IDS
def replay(task_ids: tuple[str, ...]) -> None:
    """Have tasks tried again, with all their retries; their ids and histories stay."""
    for task_id in task_ids:
        with broker_errors():
            DeadLetters(fleet()).replay(task_id)
        click.echo(f"task {task_id} queued again")


@dead.command()
@_IDS
def drop(task_ids: tuple[str, ...]) -> None:
    """Give tasks up for good."""
    for task_id in task_ids:
        with broker_errors():
            DeadLetters(fleet()).drop(task_id)
        click.echo(f"task {task_id} dropped")

"""``torch-tasks dead``: the tasks that ran out of retries."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from torch_tasks.broker.refused import RefusedLetter
from torch_tasks.cli.names import TASK
from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import ago, as_json, as_table, plain, shown, wanted
from torch_tasks.cli.tables import Column, cut, wrapped
from torch_tasks.cli.tasks import task
from torch_tasks.link import perform
from torch_tasks.model.task import TaskRecord, TaskState
from torch_tasks.operations import tasks as operations
from torch_tasks.operations.operation import Nothing
from torch_tasks.transport.deliveries import queue_of

_DEAD_COLUMNS = (
    Column("ID"),
    cut("FOR", spare=2),
    Column("TRIES", spare=3),
    Column("DIED"),
    wrapped("WHY"),
    cut("TITLE", spare=1),
)
_REFUSED_COLUMNS = (
    Column("REFUSED"),
    Column("LAY IN"),
    Column("BYTES", spare=2),
    Column("SINCE", spare=1),
    wrapped("WHY"),
)
_IDS = click.argument("task_ids", nargs=-1, required=True, type=TASK)


@click.group()
def dead() -> None:
    """List, show, replay or drop the tasks that ran out of retries."""


@dead.command(name="list")
@JSON
def list_dead(json_wanted: bool) -> None:
    """List the dead tasks, the latest first."""
    found = perform(operations.dead, Nothing())
    if json_wanted:
        as_json([*found.tasks, *({"id": name, **plain(refusal)} for name, refusal in found.refused.items())])
        return
    as_table(_DEAD_COLUMNS, map(_dead_row, found.tasks))
    if found.refused:
        as_table(_REFUSED_COLUMNS, [_refused_row(*one) for one in found.refused.items()])
    if found.not_kept:
        click.echo(
            f"{found.not_kept} older ones that were refused are not kept (TORCH_REFUSED_LIMIT, TORCH_REFUSED_BYTES)"
        )
    for message_id in found.others:
        click.echo(f"{message_id} (a message of another Celery task)")


def _dead_row(record: TaskRecord) -> tuple[object, ...]:
    why = record.result.error.message if record.result and record.result.error else record.note or ""
    return shown(record.spec.id), wanted(record), record.attempts, ago(record.finished_at), why, record.spec.title


def _refused_row(name: str, refusal: RefusedLetter) -> tuple[object, ...]:
    since = ago(datetime.fromtimestamp(refusal.at, UTC))
    return name, queue_of(refusal.place), refusal.bytes, since, refusal.why


@dead.command(name="show")
@click.argument("task_id", metavar="TASK", type=TASK)
@JSON
@click.pass_context
def show_dead(context: click.Context, task_id: str, json_wanted: bool) -> None:
    """Show one dead TASK, or why a message was refused."""
    refusal = perform(operations.dead, Nothing()).refused.get(task_id)
    if refusal is None:
        context.invoke(task, task_id=task_id, json_wanted=json_wanted)
    elif json_wanted:
        as_json({"id": task_id, **plain(refusal)})
    else:
        click.echo(
            f"{task_id} lay in {queue_of(refusal.place)}, {refusal.bytes:,} bytes, and was refused: {refusal.why}"
        )


@dead.command()
@_IDS
@JSON
def replay(task_ids: tuple[str, ...], json_wanted: bool) -> None:
    """Queue dead tasks again, with all their retries; they keep their ids and histories."""
    for task_id in task_ids:
        replayed = perform(operations.replay, operations.OfTask.build(task_id=task_id))
        if not json_wanted:
            click.echo(f"task {task_id} queued again")
        for failed in replayed.failed_with:
            click.echo(
                f"task {failed.spec.id} ({failed.spec.title}) had failed because of it, and stays so: "
                f"enqueue it again, with 'torch-tasks run --after {task_id} …'",
                err=True,
            )
    if json_wanted:
        as_json([{"id": task_id, "state": TaskState.QUEUED} for task_id in task_ids])


@dead.command()
@_IDS
@JSON
def drop(task_ids: tuple[str, ...], json_wanted: bool) -> None:
    """Delete dead tasks for good."""
    for task_id in task_ids:
        perform(operations.drop, operations.OfTask.build(task_id=task_id))
        if not json_wanted:
            click.echo(f"task {task_id} dropped")
    if json_wanted:
        as_json([{"dropped": task_id} for task_id in task_ids])

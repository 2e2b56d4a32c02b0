"""``torch-tasks run --file``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from torch_tasks.cli.output import as_json
from torch_tasks.client import Torch


def run_file(
    path: Path,
    fields: dict[str, Any],
    wait: bool,
    timeout: float | None,
    json_wanted: bool,
    *,
    agent_kind: str | None,
    spool: bool,
) -> None:
    """Enqueue the tasks of a file and print their ids; with ``wait``, how each ended instead."""
    if agent_kind:
        fields["skills"] = [*fields.get("skills", ()), agent_kind]
    from torch_tasks.tasks.task_file import read_tasks

    tasks = Torch().enqueue_many(read_tasks(path, fields), spool=spool)
    if not wait:
        ids = [{"id": task.id} for task in tasks]
        if json_wanted:
            as_json(ids)
        else:
            click.echo("\n".join(task.id for task in tasks))
        return
    deadline = None if timeout is None else time.monotonic() + timeout
    results = [task.result(None if deadline is None else max(deadline - time.monotonic(), 0)) for task in tasks]
    if json_wanted:
        as_json(results)
    else:
        click.echo("\n".join(result.summary for result in results))
    sys.exit(0 if all(result.succeeded for result in results) else 1)

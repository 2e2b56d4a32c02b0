"""What a task changed, as the machine of its agent shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch_tasks.model.task_diff import TaskDiff
from torch_tasks.server.console.page import ConsolePage, Visit

_MOST_LINES = 4000
_KINDS = (("diff ", "file"), ("+++", "place"), ("---", "place"), ("@@", "place"), ("+", "added"), ("-", "removed"))
"""How a line begins, and the class by which it has its colour."""


def gather(visit: Visit) -> dict[str, Any]:
    task_id = visit.path["task_id"]
    record, changes = visit.ask("task.get", task_id=task_id), visit.ask("task.diff", task_id=task_id)
    lines = list(coloured(changes))
    return {
        "task": record,
        "changes": changes,
        "lines": lines[:_MOST_LINES],
        "is_cut": changes.is_cut or len(lines) > _MOST_LINES,
        "heading": f"Changes of {record.spec.title}",
    }


def coloured(changes: TaskDiff) -> Iterator[tuple[str, str]]:
    """Each line of the diff with its kind."""
    for line in changes.text.split("\n"):
        yield next((kind for begins, kind in _KINDS if line.startswith(begins)), "same"), line


CHANGES = ConsolePage("changes", "/tasks/{task_id}/diff", "Changes of a task", gather, news="", under="board")

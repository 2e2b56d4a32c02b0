"""What happened to a task, entry by entry."""

from __future__ import annotations

from pydantic import AwareDatetime

from torch_tasks.models import Model, TaskState


class HistoryEntry(Model):
    """One thing that happened to a task."""

    at: AwareDatetime
    state: TaskState
    agent: str | None = None
    node: str | None = None
    incarnation: int | None = None
    note: str | None = None

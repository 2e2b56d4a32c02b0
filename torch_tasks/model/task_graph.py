"""What a task waits for, and what waits for it, as a graph."""

from __future__ import annotations

from torch_tasks.model.fields import KeptText, Model
from torch_tasks.model.task import TaskState


class GraphNode(Model):
    """One task of the graph."""

    id: str
    title: KeptText = ""
    state: TaskState | None = None
    """None if there is no record of it any more."""
    forged: bool = False
    """Nobody may believe that it ended like this."""


class TaskGraph(Model):
    """A task, all that it waits for, and all that waits for it."""

    task_id: str
    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[str, str], ...]
    """The task that is waited for, and the one that begins after it."""
    left_out: bool = False
    """There are more tasks than are shown."""

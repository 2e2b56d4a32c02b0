"""Torch: fleets of terminal agents, fed by Celery.

>>> from torch_tasks import Torch
>>> Torch().enqueue("make test", role="developer").result().answer  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_tasks.app import app as celery
    from torch_tasks.client import Task, Torch
    from torch_tasks.model.task import TaskRecord, TaskResult, TaskSpec, TaskState

__all__ = ["Task", "TaskRecord", "TaskResult", "TaskSpec", "TaskState", "Torch", "celery"]

_HOME = {
    "Task": "torch_tasks.client",
    "Torch": "torch_tasks.client",
    "TaskRecord": "torch_tasks.model.task",
    "TaskResult": "torch_tasks.model.task",
    "TaskSpec": "torch_tasks.model.task",
    "TaskState": "torch_tasks.model.task",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the command and the agents' own calls start without Celery.
    # ``celery`` is the name under which ``celery -A torch_tasks`` looks for the application.
    if name == "celery":
        return import_module("torch_tasks.app").app
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

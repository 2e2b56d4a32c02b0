"""The façades in Python: they build requests, and perform them on this process's link."""

from __future__ import annotations

from torch_tasks.client.staff import SpawnFields, SpawnHandle, await_empty
from torch_tasks.client.task import Task, TaskFields
from torch_tasks.client.torch import Torch

__all__ = ["SpawnFields", "SpawnHandle", "Task", "TaskFields", "Torch", "await_empty"]

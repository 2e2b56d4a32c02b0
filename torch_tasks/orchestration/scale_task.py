"""The Celery task in which beat has the pools grow. What decides it is read without Celery."""

from __future__ import annotations

from typing import Any

from torch_tasks.app import app
from torch_tasks.fleet import fleet
from torch_tasks.orchestration.scaling import Autoscaler
from torch_tasks.tasks.system_task import SystemTask


@app.task(base=SystemTask, name="torch.scale", is_periodic=True)
def scale() -> dict[str, Any]:
    """Let the pools grow; returns what was decided, and why."""
    return Autoscaler(fleet()).step().model_dump(mode="json")

"""An answer for the agent, from whoever its task waits for."""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

from torch_tasks.app import ANSWER, app


@control_command(name=ANSWER, args=[("task_id", str), ("reply", str)])
def answer(state: Any, task_id: str, reply: str) -> dict[str, bool]:
    """Pass it on to the agent of this process."""
    return {"ok": app.host is not None and app.host.answer(task_id, reply)}

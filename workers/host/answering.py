"""What is said to this worker beside its tasks: an answer for its agent, and what it shall look at or show."""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

from torch_tasks.app import ANSWER, HEED, LOOK, RESOURCES, SHOW, app
from torch_tasks.workers.host import heed as heeding


@control_command(name=ANSWER, args=[("task_id", str), ("reply", str)])
def answer(state: Any, task_id: str, reply: str) -> dict[str, bool]:
    """Pass it on to the agent of this process."""
    return {"ok": app.host is not None and app.host.answer(task_id, reply)}


@control_command(name=LOOK)
def look(state: Any) -> dict[str, bool]:
    """Have the agent's worker look at what the record says of its task."""
    if app.host:
        app.host.look_again()
    return {"ok": app.host is not None}


@control_command(name=HEED)
def heed(state: Any) -> dict[str, bool | str]:
    """Have the worker ask what is paused and stopped."""
    return {"ok": True, "held": heeding.hear_now() or ""}


@control_command(name=SHOW)
def show(state: Any) -> dict[str, bool]:
    """Have the fleet see the agent's screen for a while."""
    if app.host:
        app.host.show_screen()
    return {"ok": app.host is not None}


@control_command(name=RESOURCES)
def resources(state: Any) -> dict[str, Any]:
    """Tell what the agent's terminal uses of this machine."""
    return app.host.resources().model_dump(mode="json") if app.host else {}

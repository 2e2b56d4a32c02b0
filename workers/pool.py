"""The pool of an agent worker: Celery's threads, with a way to terminate what an agent does."""

from __future__ import annotations

from typing import Any

from celery.concurrency.thread import TaskPool
from celery.worker import state

from torch_tasks.app import app


class AgentPool(TaskPool):
    """One thread, whose task is ended by interrupting the agent in its pane."""

    def on_stop(self) -> None:
        """The worker stops, in peace or not: the running task is let go of, not waited for."""
        if app.host is not None:
            app.host.detach()
        super().on_stop()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """The running task was revoked, by Flower's button, ``AsyncResult.revoke`` or ``torch-tasks cancel``."""
        if app.host is not None:
            app.host.cancel(state.revoked)

"""Celery's result backend on Redis, without a subscription for each task that is only enqueued.

Celery's own subscribes to every task's result when it is sent, whether or not anybody will wait, and a process that
only enqueues never reads what that brings. Whoever waits subscribes when the waiting begins; that is enough.
"""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend


class Results(RedisBackend):
    """Subscribes to a result when somebody waits for it."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """A task was sent; nobody waits for it yet."""

"""Celery's result backend on Redis, patient, and without a subscription for each task that is only enqueued.

Celery's own subscribes to every task's result when it is sent, whether or not anybody will wait, and a process that
only enqueues never reads what that brings. A process that waits subscribes when the waiting begins; that is enough.
"""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend
from celery.worker import state as worker_state
from tenacity import Retrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from torch_tasks.broker.connection import LOST


class Results(RedisBackend):
    """Subscribes to a result when a process waits for it, and has it kept though the broker be away just now."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """A task was sent; no process waits for it yet."""

    def store_result(self, *args: Any, **kwargs: Any) -> Any:
        """Keep how a task stands, again and again until the broker is back or this worker leaves.

        Celery would take the loss for the task's failure, and its message would never be settled.
        """
        again = Retrying(
            retry=retry_if_exception_type(LOST),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            stop=lambda _: _stopping(),
            reraise=True,
        )
        return again(super().store_result, *args, **kwargs)


def _stopping() -> bool:
    unset = (None, False)
    return not (worker_state.should_stop in unset and worker_state.should_terminate in unset)

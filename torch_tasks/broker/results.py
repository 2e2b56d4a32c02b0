"""Celery's result backend on Redis, which waits for a broker that is away and subscribes only for those who wait."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend
from celery.worker import state as worker_state
from tenacity import Retrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from torch_tasks.broker.connection import LOST


class Results(RedisBackend):
    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do not subscribe to a task's result when it is sent; a process that waits subscribes when it begins to."""

    def store_result(self, *args: Any, **kwargs: Any) -> Any:
        """Try to store a result until the broker is back or this worker stops.

        Celery would take the lost connection for the task's failure, and never settle its message.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(LOST),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            stop=lambda _: _is_worker_stopping(),
            reraise=True,
        )
        return retrying(super().store_result, *args, **kwargs)


def _is_worker_stopping() -> bool:
    # Each holds None or False, or else the exit code: 0 means that the worker stops, too.
    orders = (worker_state.should_stop, worker_state.should_terminate)
    return any(order is not None and order is not False for order in orders)

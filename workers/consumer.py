"""Celery's consumer, which would drop what it cannot take for a task; Torch's keeps it among the dead letters."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer

from torch_tasks.app import app
from torch_tasks.model.reader import shortened


class RefusingConsumer(Consumer):
    """Refuses each message that is no task of this worker, and then does as Celery does: nothing is left to drop."""

    def on_unknown_message(self, body: Any, message: Any) -> None:
        _refuse(message, "it is no task")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        _refuse(message, f"no worker here knows the task {shortened(str(exc))}")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        _refuse(message, f"it is no valid task: {shortened(str(exc))}")
        super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        _refuse(message, f"its body cannot be read: {shortened(str(exc))}")
        super().on_decode_error(message, exc)


def _refuse(message: Any, why: str) -> None:
    tag = message.delivery_tag
    if keeper := app.leases.keeper_of(tag):
        keeper.refuse(tag, why)

"""Celery's consumer with Torch's manners: what is no task goes to the dead letters, and events are sent together."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from celery.worker.consumer import Consumer

from torch_tasks.app import app
from torch_tasks.model.reader import shortened

EVENTS_SECONDS = 0.3
"""How long an event about a task waits for others; who watches in Flower does not notice."""


class OwnConsumer(Consumer):
    """Refuses each message that is no task of this worker, so that Celery drops none; gathers events for a moment."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gathered_until = 0.0

    def on_send_event_buffered(self) -> None:
        """Send what is gathered soon; any thread may call this."""
        if self.hub and time.monotonic() >= self._gathered_until:
            self._gathered_until = time.monotonic() + EVENTS_SECONDS
            self.hub.call_soon(self.timer.call_after, EVENTS_SECONDS, self._flush_events)

    def shutdown(self) -> None:
        """Send what is gathered, and end."""
        with suppress(*self.connection_errors):
            self._flush_events()
        super().shutdown()

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

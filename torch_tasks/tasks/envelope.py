"""The message by which a task came to this worker, and what can be done with it besides acknowledging it."""

from __future__ import annotations

import json
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

from torch_tasks.errors import TaskFailed
from torch_tasks.model.host import TaskDelivery
from torch_tasks.model.task import Failure, Priority
from torch_tasks.transport import keeper_of
from torch_tasks.transport.deliveries import LOSSES, list_of_tag, queue_of


class Envelope:
    """A held delivery. Each way of sending it on is one step on the broker, and returns what the task then raises."""

    def __init__(self, request: Any) -> None:
        self._id = request.id
        self._tag = str(request.properties["delivery_tag"])
        self._keeper = keeper_of(self._tag)
        self._text = self._keeper.message(self._tag) if self._keeper else None
        self._fields: dict[str, Any] = json.loads(self._text) if self._text else {}

    @property
    def delivery(self) -> TaskDelivery | None:
        """What must be put back if the broker forgets it; nothing if the lease is lost already."""
        return TaskDelivery(self._tag, self._text) if self._text else None

    @property
    def is_redelivered(self) -> bool:
        """The worker that had it before was lost."""
        return bool(self._fields.get(LOSSES))

    @property
    def times_passed(self) -> int:
        """How often an agent left it to others."""
        return int(self._headers.get("torch_passed", 0))

    def sent_to(self, queue: str, priority: Priority) -> Exception:
        """Put it into another queue, at its front."""
        if self._keeper is None:
            return _raised(Ignore())
        self._keeper.move(self._tag, queue, priority.step)
        return _raised(Reject(f"sent on to {queue}", requeue=True))

    def put_aside(self, seconds: float) -> Exception:
        """Have it come again, through the queue it came from, in a while."""
        return self._parked(self._queue, seconds, Reject(f"put aside for {seconds:g} s", requeue=True))

    def passed_on(self, seconds: float) -> Exception:
        """Leave it to other agents for a while."""
        self._headers["torch_passed"] = self.times_passed + 1
        return self._parked(self._queue, seconds, Reject("left to another agent", requeue=True))

    def tried_again(self, queue: str, seconds: float, failure: Failure) -> Exception:
        """Have it come again after the pause, as one more retry."""
        self._headers["retries"] = int(self._headers.get("retries") or 0) + 1
        self._headers["torch_passed"] = 0
        return self._parked(queue, seconds, Retry(failure.message, TaskFailed(failure.message), seconds))

    def bury(self) -> None:
        """Put it among the dead letters, from where a person may replay it."""
        if self._keeper:
            self._keeper.bury(self._tag, self._id)

    @property
    def _headers(self) -> dict[str, Any]:
        headers: dict[str, Any] = self._fields.setdefault("headers", {})
        return headers

    @property
    def _queue(self) -> str:
        return queue_of(list_of_tag(self._tag))

    def _parked(self, queue: str, seconds: float, then: Any) -> Exception:
        if self._keeper is None:
            return _raised(Ignore())
        step = int(self._fields["properties"]["priority"])
        self._keeper.park(self._tag, queue, step, int(seconds * 1000), json.dumps(self._fields))
        return _raised(then)


def _raised(error: Any) -> Exception:
    """Celery has no types."""
    assert isinstance(error, Exception)
    return error

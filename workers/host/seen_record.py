"""What the record of a running task says to the agent that works on it, without asking the broker at each look."""

from __future__ import annotations

import contextlib
import time

from torch_tasks.errors import BrokerAway
from torch_tasks.store.task_outcomes import Ownership
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.workers.host.hosted_agent import TaskOrders

_BELIEVED_SECONDS = 0.2


class SeenRecord:
    """Who owns a task by its record, and what is asked of them."""

    def __init__(self, records: TaskRecords, orders: TaskOrders, task_id: str) -> None:
        self._records, self._orders, self._task_id = records, orders, task_id
        self._seen: Ownership | None = None
        self._at, self._changes = 0.0, 0

    def look(self, *, is_last: bool) -> Ownership | None:
        """What the record says; nothing while the broker is away: the agent works on meanwhile.

        Unless this ``is_last`` before something is decided, what it said a moment ago counts, if nobody has told this
        worker since that it changed.
        """
        is_old = time.monotonic() - self._at >= _BELIEVED_SECONDS or self._changes != self._orders.changes
        if is_last or is_old or self._seen is None:
            self._at, self._changes, self._seen = time.monotonic(), self._orders.changes, None
            with contextlib.suppress(BrokerAway):
                self._seen = self._records.ownership(self._task_id)
        return self._seen

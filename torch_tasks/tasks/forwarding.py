"""Tasks whose messages wait in a queue, and moving such a message to the queue where its task belongs now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch_tasks.fleet import Fleet
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import TaskRecord
from torch_tasks.transport.envelope import message_id


@dataclass(frozen=True)
class QueuedTask:
    record: TaskRecord
    queue: str
    message: str

    def forward(self, fleet: Fleet) -> bool:
        """Move the message to the front of the task's own queue; false if a worker took it meanwhile."""
        spec = self.record.spec
        return fleet.deliveries.forward(self.queue, self.message, queue_for(spec), spec.priority.step)


def queued_tasks(queue: str, fleet: Fleet, *, only: str | None = None) -> Iterator[QueuedTask]:
    """The tasks that wait in this queue and have not ended; with ``only``, that task alone."""
    for message in fleet.deliveries.waiting(queue):
        task_id = message_id(message)
        if task_id is None or only not in (None, task_id):
            continue
        record = fleet.records.find(task_id)
        if record and not record.state.ended:
            yield QueuedTask(record, queue, message)

"""Messages that no agent is to get any more, because their tasks ended before one began: taken out of their queues.

Such a message is kept apart until Celery knows of the end, too; housekeeping finishes what a lost process began.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode

from celery.app.task import Context

from torch_tasks import keys
from torch_tasks.app import app
from torch_tasks.errors import TaskFailed, Unreadable
from torch_tasks.fleet import Fleet
from torch_tasks.model.task import TaskRecord, TaskResult, TaskState
from torch_tasks.transport.envelope import delivered

log = logging.getLogger(__name__)


def withdraw(record: TaskRecord, fleet: Fleet) -> bool:
    """Take the message of a task that has ended out of its queue; returns whether it waited in one."""
    task_id = record.spec.id
    pinned_to = [agent_id for agent_id, pinned in fleet.soft_pins.all() if pinned == task_id]
    queues = {record.queue, *map(keys.agent_queue, filter(None, (*pinned_to, record.agent)))}
    if not any(fleet.deliveries.withdraw(queue, task_id) for queue in queues):
        return False
    settle(task_id, fleet)
    return True


def settle_all(fleet: Fleet) -> None:
    for task_id in fleet.deliveries.set_aside():
        settle(task_id, fleet)


def settle(task_id: str, fleet: Fleet) -> None:
    """Tell Celery how the task of a message ended that is set aside, and drop the message."""
    record, message = fleet.records.find(task_id), fleet.deliveries.message_aside(task_id)
    if message and record and record.state.ended:
        result = record.result or TaskResult(task_id=task_id, status=record.state)
        try:
            _tell_celery(result, _request(message))
        except Unreadable as error:
            log.error("Celery is not told that task %s ended: %s", task_id, error)
    fleet.deliveries.drop_aside(task_id)


def _tell_celery(result: TaskResult, request: Context) -> None:
    """Write the end where ``AsyncResult`` looks, and have the rest of its canvas know."""
    if result.status is TaskState.CANCELLED:
        app.backend.mark_as_revoked(result.task_id, result.summary, request=request)
    else:
        app.backend.mark_as_failure(result.task_id, TaskFailed(result.summary), request=request)


def _request(message: str) -> Context:
    """The message as Celery's backend wants to know it: its place in a canvas, and what is to be called at its end."""
    payload = delivered(message, "")
    body = payload["body"]
    if payload["properties"].get("body_encoding") == "base64":
        body = b64decode(body)
    args, kwargs, embedded = json.loads(body)
    return Context(payload["headers"], args=args, kwargs=kwargs, **embedded)

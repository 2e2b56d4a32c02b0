"""Messages set aside, so that no agent gets them: of tasks that wait for others, and of tasks that ended in a queue.

The message of a task that waits for others goes to its queue in the step in which its record does. That of a task that
ended before an agent had it is kept until Celery knows of the end, too. The process that ends a task looks after those
that wait for it; housekeeping finishes what a lost process began.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from collections.abc import Iterable

from celery.app.task import Context

from torch_tasks import keys
from torch_tasks.app import app
from torch_tasks.errors import TaskFailed, Unreadable
from torch_tasks.fleet import Fleet
from torch_tasks.model.task import Failure, FailureKind, TaskRecord, TaskResult, TaskState
from torch_tasks.store.task_fields import followers
from torch_tasks.store.task_outcomes import Release
from torch_tasks.transport.envelope import delivered

log = logging.getLogger(__name__)


def withdraw(record: TaskRecord, fleet: Fleet) -> bool:
    """Take the message of a task that has ended out of its queue, or from aside; returns whether it was there."""
    task_id = record.spec.id
    pinned_to = [agent_id for agent_id, pinned in fleet.soft_pins.all() if pinned == task_id]
    queues = {record.queue, *map(keys.agent_queue, filter(None, (*pinned_to, record.agent)))}
    found = fleet.deliveries.message_aside(task_id) or any(fleet.deliveries.withdraw(one, task_id) for one in queues)
    if found:
        settle([task_id], fleet)
    return bool(found)


def settle_all(fleet: Fleet) -> None:
    """:func:`settle` each of which that may be possible."""
    ids = fleet.deliveries.set_aside()
    records = fleet.records.find_all(ids)
    awaited = {task_id for record in records if record for task_id in record.spec.after}
    outlines = dict(zip(awaited, fleet.records.outlines(awaited), strict=True))
    ended = {task_id for task_id, outline in outlines.items() if outline and outline.state.ended}
    still = {
        record.spec.id
        for record in records
        if record and record.state is TaskState.PENDING and record.spec.after and ended.isdisjoint(record.spec.after)
    }
    settle([task_id for task_id in ids if task_id not in still], fleet)


def settle(task_ids: Iterable[str], fleet: Fleet) -> None:
    """Do with the messages of these tasks what is to be done now, and with those of whichever ends by that.

    Celery learns that a task failed before it learns that what waited for that one did.
    """
    to_do = list(task_ids)
    while to_do:
        task_id = to_do.pop()
        record = fleet.records.find(task_id)
        if record is None:
            fleet.deliveries.drop_aside(task_id)
        elif record.state is TaskState.PENDING:
            to_do += _release(record, fleet)
        elif record.state.ended:
            _tell_of_end(record, fleet)
        else:
            fleet.deliveries.put_aside_back(task_id, record.queue, record.spec.priority.step)


def _release(record: TaskRecord, fleet: Fleet) -> list[str]:
    """Queue the task, or fail it if it waits in vain; returns what is to be looked at then, the task itself last."""
    outcome, awaited = fleet.records.release(record)
    if outcome is not Release.FAILED:
        return []
    task_id = record.spec.id
    before = fleet.records.find(awaited)
    how = f"{before.state}: {before.spec.title}" if before else "gone"
    failure = Failure(kind=FailureKind.DEPENDENCY, message=f"it was to begin after task {awaited}, which is {how}")
    account = fleet.records.end_unowned(TaskResult(task_id=task_id, status=TaskState.FAILED, error=failure))
    if account is None:
        return []
    return [*followers(account), task_id]


def _tell_of_end(record: TaskRecord, fleet: Fleet) -> None:
    """Tell Celery how the task ended, and drop its message."""
    task_id = record.spec.id
    if message := fleet.deliveries.message_aside(task_id):
        result = record.result or TaskResult(task_id=task_id, status=record.state)
        try:
            _tell_celery(result, _request(message))
        except Unreadable as error:
            log.error("Celery does not learn that task %s ended: %s", task_id, error)
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
    return Context(payload["headers"], args=args, kwargs=kwargs, **(embedded or {}))

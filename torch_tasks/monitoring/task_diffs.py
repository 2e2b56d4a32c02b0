"""What a task changed, asked of the worker of the agent that did it."""

from __future__ import annotations

import time
import uuid

from pydantic import ValidationError

from torch_tasks import keys
from torch_tasks.broker.connection import broker_errors
from torch_tasks.fleet import fleet
from torch_tasks.model.task import TaskRecord
from torch_tasks.model.task_diff import TaskDiff

_TAKEN_SECONDS, _ANSWER_SECONDS = 2.0, 15.0


def changes_of_task(record: TaskRecord) -> TaskDiff:
    """The diff from the machine on which the task was done; why there is none, if that cannot be had."""
    if record.agent is None or not record.attempts:
        return TaskDiff(why_not="no agent has begun it")
    known = fleet().registry.get_agents([record.agent])
    place = f"{record.agent} on {record.node}"
    if not any(info.online and info.node == record.node for info in known):
        return TaskDiff(why_not=f"{place}, where its tree is, is away or gone")
    from torch_tasks.app import DIFF, app

    ticket = uuid.uuid4().hex
    with broker_errors(), fleet().client.pubsub(ignore_subscribe_messages=True) as answers:  # type: ignore[no-untyped-call]
        answers.subscribe(keys.task_diff(ticket))
        answers.get_message(timeout=_TAKEN_SECONDS)  # the subscription is confirmed
        asked = {"task_id": record.spec.id, "ticket": ticket}
        worker = [f"{record.agent}@{record.node}"]
        if not app.control.broadcast(
            DIFF, arguments=asked, destination=worker, reply=True, timeout=_TAKEN_SECONDS, limit=1
        ):
            return TaskDiff(why_not=f"the worker of {place} does not answer")
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if answer := answers.get_message(timeout=left):
                return _read(str(answer["data"]), place)
    return TaskDiff(why_not=f"git on {record.node} took too long")


def _read(text: str, place: str) -> TaskDiff:
    try:
        return TaskDiff.model_validate_json(text)
    except ValidationError:
        return TaskDiff(why_not=f"the answer of {place} cannot be read")

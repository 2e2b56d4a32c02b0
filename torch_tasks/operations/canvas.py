"""The operations behind Celery's own calls in an agent's pane: publishing finished messages, and results."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Self

from celery.result import result_from_tuple
from pydantic import Field, JsonValue

from torch_tasks.app import RUN, accepted, app, how_shown
from torch_tasks.errors import NotThroughDesk
from torch_tasks.model.fields import JsonObject, TaskId
from torch_tasks.model.reader import read_json, unreadable_if_wrong
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import Permissions
from torch_tasks.model.traceparent import HEADER
from torch_tasks.operations.operation import WAIT_SECONDS, Access, Request, operation
from torch_tasks.operations.tasks import AcceptedTask
from torch_tasks.security.rights import Right, Subject
from torch_tasks.settings import settings
from torch_tasks.tasks import publishing, recovery
from torch_tasks.tasks.publishing import Outgoing
from torch_tasks.tasks.recorded_asker import stamp
from torch_tasks.tasks.trace_context import carry

_HEADERS = frozenset((
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
    "parent_id", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", HEADER,
))  # fmt: skip
"""What a message of Celery's says of its task. All others are made here: they say how it travels."""
_TASKS = frozenset((RUN, "celery.chain", "celery.group", "celery.chord"))
"""What a message may have workers send afterwards."""
_PLACES = frozenset(("queue", "exchange", "routing_key"))
_LOOK_SECONDS = 0.1


class Publish(Request):
    """A finished message of the Celery task torch.run."""

    id: TaskId
    body: str = Field(description="The task's arguments, and what follows it, as Celery's JSON.")
    headers: JsonObject = Field({}, description="Celery's headers of the message.")
    reply_to: str = ""
    expiration: float | None = Field(None, ge=0, description="After so many seconds no agent begins it any more.")
    spool: bool = Field(False, description="While the broker is away, keep the task on this machine's disk.")

    @classmethod
    def of(cls, outgoing: Outgoing, *, spool: bool) -> Self:
        headers = {name: value for name, value in outgoing.options["headers"].items() if name in _HEADERS}
        how = {name: outgoing.options[name] for name in ("reply_to", "expiration") if outgoing.options.get(name)}
        return cls.build(id=outgoing.task_id, body=outgoing.body, headers=headers, spool=spool, **how)


def _granting(asked: Publish) -> Right | None:
    """The further right that it takes, if a task in it, or after it, gets every permission."""
    granted = any(found.get("permissions") == Permissions.ALLOW for found in _objects(read_json(asked.body)))
    return Right.GRANT if granted else None


@operation("canvas.publish", Right.ENQUEUE, access=Access.WRITE, also=_granting, needs_broker=False)
def publish(asked: Publish) -> AcceptedTask:
    """Publish a task that Celery made ready in an agent's pane, with all that follows it in its canvas."""
    publishing.publish(_outgoing(asked), app, spool=asked.spool, retry=False)
    return AcceptedTask(id=asked.id, spooled=asked.spool and recovery.is_spooled(asked.id))


def _outgoing(asked: Publish) -> Outgoing:
    """The message as it is published, or the error that says why it is not."""
    body = read_json(asked.body)
    with unreadable_if_wrong():
        (*earlier, wire), fields, later = body
        spec = accepted(wire, asked.id, fields)
    _require_only_own_tasks(later)
    queue = queue_for(spec)
    headers = {name: value for name, value in asked.headers.items() if name in _HEADERS}
    stamp(headers)
    carry(headers)
    headers |= {"task": RUN, "id": spec.id, **how_shown(spec, queue)}
    options = {
        "exchange": "",
        "routing_key": queue,
        "delivery_mode": 2,
        "headers": headers,
        "correlation_id": spec.id,
        "reply_to": asked.reply_to,
        "priority": spec.priority.step,
        **({"expiration": asked.expiration} if asked.expiration is not None else {}),
    }
    finished = Outgoing.of(([*earlier, spec.wire()], {}, later), options)
    return finished.within(settings().wire_limit_bytes)


def _require_only_own_tasks(later: Any) -> None:
    """Refuse a message after which a worker would send something else than tasks of agents."""
    for found in _objects(later):
        if "task" in found and "args" in found:
            if found["task"] not in _TASKS:
                raise NotThroughDesk(
                    f"an agent's canvas may hold tasks of agents alone (torch.run), and not {found['task']!r}"
                )
            options = found.get("options")
            if places := sorted(_PLACES & options.keys()) if isinstance(options, dict) else []:
                raise NotThroughDesk(
                    f"the queue of a task follows from its role, skills and agent; leave out {', '.join(places)}"
                )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
        if isinstance(one, (dict, list)):
            left.extend(one.values() if isinstance(one, dict) else one)


class AwaitResult(Request):
    task_id: TaskId
    seconds: float = Field(0.0, ge=0, le=WAIT_SECONDS, description="Wait for so long until it is there.")


@operation("canvas.result", Right.LOOK, about=lambda asked: Subject(task=asked.task_id))
def result(asked: AwaitResult) -> str:
    """What Celery keeps of a task's result, as its JSON; the state PENDING if it keeps nothing."""
    deadline = time.monotonic() + asked.seconds
    while True:
        text = app.backend.meta_text(asked.task_id) or '{"status": "PENDING", "result": null}'
        if time.monotonic() >= deadline or json.loads(text)["status"] in app.backend.READY_STATES:
            return text
        time.sleep(_LOOK_SECONDS)


class OfGroup(Request):
    group_id: TaskId


class ChordSize(OfGroup):
    size: int = Field(ge=0)


@operation("canvas.set_chord_size", Right.ENQUEUE, access=Access.WRITE)
def set_chord_size(asked: ChordSize) -> None:
    """Say how many tasks a chord waits for."""
    app.backend.set_chord_size(asked.group_id, asked.size)


class KeptGroup(OfGroup):
    results: JsonValue = Field(description="The ids of the group's tasks, in the form in which Celery keeps a group.")


@operation("canvas.keep_group", Right.ENQUEUE, access=Access.WRITE)
def keep_group(asked: KeptGroup) -> None:
    """Keep which tasks a group of Celery has."""
    with unreadable_if_wrong():
        group = result_from_tuple(asked.results, app)
        app.backend.save_group(asked.group_id, group)


@operation("canvas.group_kept", Right.LOOK)
def group_kept(asked: OfGroup) -> JsonValue:
    """The tasks of a group that Celery keeps, in its form; null if it keeps none."""
    kept = app.backend.get_group_meta(asked.group_id, cache=False)
    return kept["result"].as_tuple() if kept else None

"""Sends a task to the broker: noted in the ledger, accepted by the records, and only then published.

This hooks into :attr:`celery.app.amqp.AMQP.send_task_message`, where ``delay``, canvas, retries and the rest all end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from kombu.serialization import dumps
from kombu.utils import json
from tenacity import Retrying, retry_if_exception
from tenacity.wait import wait_random_exponential

from torch_tasks.app import ANNOUNCE_QUEUE, RUN, TorchApp
from torch_tasks.broker.connection import broker_errors, is_away
from torch_tasks.caller import own_desk
from torch_tasks.errors import (
    BrokerAway,
    BrokerUnreachable,
    InvalidTask,
    LedgerOff,
    LedgerUnusable,
    TaskIdTaken,
    UnknownDependency,
)
from torch_tasks.fleet import fleet
from torch_tasks.model.traceparent import HEADER
from torch_tasks.settings import settings
from torch_tasks.started_by_name import PUBLISH_AT_DESK, load
from torch_tasks.store.ledger import Ledger, RowState
from torch_tasks.store.task_fields import fingerprint
from torch_tasks.store.task_outcomes import Acceptance, Accepted, NewTask
from torch_tasks.tasks import set_aside
from torch_tasks.tasks.recorded_asker import asker_in, stamp
from torch_tasks.tasks.trace_context import carry
from torch_tasks.transport.amqp import LeasedAMQP
from torch_tasks.transport.deliveries import SET_ASIDE_HEADER
from torch_tasks.transport.joining import Placing, joined

log = logging.getLogger(__name__)

_ENVELOPE_BYTES = 16 << 10
"""What a message has beside its body, at most."""
_HOW = frozenset({"declare", "retry", "retry_policy", "serializer", "timeout", "confirm_timeout"})
"""The options that say how to publish; all others belong to the message."""


_KEPT = ("task_id", "queue", "body", "options")
"""What the ledger keeps of a message."""


class Publishing(LeasedAMQP):
    """Celery's sending of tasks, with each ``torch.run`` sent by a :class:`LedgerProducer`."""

    def _create_task_sender(self) -> Callable[..., Any]:
        send = super()._create_task_sender()

        def send_task_message(
            producer: Any,
            name: str,
            message: Any,
            *,
            spool: bool = False,
            first_to: str | None = None,
            into: list[Outgoing] | None = None,
            **options: Any,
        ) -> Any:
            stamp(message.headers)
            carry(message.headers)
            if name == RUN and into is not None:
                producer = Collector(producer, into)
            elif name == RUN and own_desk():
                producer = DeskProducer(producer, spool=spool)
            elif name == RUN:
                producer = LedgerProducer(producer, self.app, spool=spool, first_to=first_to)
            return send(producer, name, message, **options)

        return send_task_message


@dataclass(frozen=True)
class Outgoing:
    """A task on its way to the broker, exactly as it is published, callbacks and chain included."""

    task_id: str
    queue: str
    body: str
    options: dict[str, Any]

    @classmethod
    def of(cls, body: Any, options: dict[str, Any]) -> Self:
        # Serialised here and never again, so that the ledger has exactly what is published.
        content_type, encoding, text = dumps(body, serializer="json")
        what = {name: value for name, value in options.items() if name not in _HOW}
        what |= {"content_type": content_type, "content_encoding": encoding}
        return cls(options["headers"]["id"], options["routing_key"], text, what)

    @classmethod
    def read(cls, text: str) -> Self:
        return cls(**json.loads(text))

    @cached_property
    def wire(self) -> dict[str, Any]:
        """The spec as it travels."""
        *_, wire = json.loads(self.body)[0]
        return dict(wire)

    def within(self, limit: int) -> Self:
        """This, or :class:`InvalidTask` if no worker would read it: its body travels in base64."""
        size = len(self.body) * 4 // 3 + _ENVELOPE_BYTES
        if size > limit:
            raise InvalidTask(
                f"this task cannot be accepted: with all that follows it in its canvas the message has {size:,} bytes, "
                f"the limit is {limit:,} (TORCH_WIRE_LIMIT_BYTES); put the bulk into files and name them in the prompts"
            )
        return self

    def text(self) -> str:
        """The row that the ledger keeps; :meth:`read` is the inverse."""
        return str(json.dumps({name: getattr(self, name) for name in _KEPT}))

    def accept(self, app: TorchApp, *, must_know: bool = False) -> Accepted:
        """Give the task a record, and announce its queue to the agent workers if it is new."""
        return self._announced(self._accept(must_know=must_know), app)

    def accept_and_publish(self, producer: Any, app: TorchApp, accepted: list[Accepted], **how: Any) -> Any:
        """Give the task a record and put its message into its queue, or aside, in one step.

        Adds the broker's answer to ``accepted``; an error if it is not accepted.
        """
        with joined(lambda placing: accepted.append(self._accept(must_know=True, placing=placing))):
            sent = producer.publish(self.body, **{**self.options, **how})
        _require_accepted(self.task_id, self._announced(accepted[-1], app))
        if accepted[-1].is_pending:
            set_aside.settle([self.task_id], fleet())  # what it waits for may have ended meanwhile
        return sent

    def _accept(self, *, must_know: bool, placing: Placing | None = None) -> Accepted:
        headers = self.options["headers"]
        by, trace = asker_in(headers), headers.get(HEADER)
        task = NewTask(self.task_id, self.wire, self.queue, by, trace, placing)
        return fleet().records.accept(task, must_know=must_know)

    def _announced(self, accepted: Accepted, app: TorchApp) -> Accepted:
        if accepted.new_queue:
            app.control.broadcast(ANNOUNCE_QUEUE, arguments={"queue": self.queue})
        return accepted

    def publish(self, producer: Any, accepted: Accepted, **how: Any) -> Any:
        """Put the message into its queue, or aside if the task waits for others."""
        options = {**self.options, **how}
        if not accepted.is_pending:
            return producer.publish(self.body, **options)
        options["headers"] = {**options["headers"], SET_ASIDE_HEADER: True}
        sent = producer.publish(self.body, **options)
        set_aside.settle([self.task_id], fleet())  # what it waits for may have ended meanwhile
        return sent


def publish(outgoing: Outgoing, app: TorchApp, *, spool: bool, **how: Any) -> None:
    """Publish a task that was made ready; ``how`` are options that do not belong to its message."""
    with broker_errors(), app.producer_or_acquire() as producer:
        LedgerProducer(producer, app, spool=spool).send(outgoing, {**how_published(app, outgoing.queue), **how})


def how_published(app: TorchApp, queue: str) -> dict[str, Any]:
    """How Celery publishes into this queue: declared before, and tried as often as its settings say."""
    policy = dict(app.conf.task_publish_retry_policy)
    return {"declare": [app.amqp.queues[queue]], "retry": app.conf.task_publish_retry, "retry_policy": policy}


class Collector:
    """A producer that publishes nothing and keeps what it was to publish."""

    def __init__(self, producer: Any, into: list[Outgoing]) -> None:
        self._producer = producer
        self._into = into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **options: Any) -> None:
        self._into.append(Outgoing.of(body, options).within(settings().wire_limit_bytes))


class DeskProducer:
    """A producer of a process in an agent's pane, which has the agent's worker publish the task."""

    def __init__(self, producer: Any, *, spool: bool) -> None:
        self._producer = producer
        self._spool = spool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **options: Any) -> None:
        outgoing = Outgoing.of(body, options).within(settings().wire_limit_bytes)
        load(PUBLISH_AT_DESK)(outgoing, spool=self._spool)


class LedgerProducer:
    """A producer that publishes a task only once it is in this machine's ledger and has a record.

    If publishing fails, nothing is left behind, unless the broker is away and the task may be spooled: then it waits in
    the ledger. What a running task sends, such as the next one of its chain, waits for the broker to return, and in the
    ledger if this worker leaves before that: no caller would see the failure.
    """

    def __init__(self, producer: Any, app: TorchApp, *, spool: bool, first_to: str | None = None) -> None:
        self._producer = producer
        self._app = app
        self._spool = spool
        #: The queue that the message goes to instead of its own; its record and the ledger name its own.
        self._first_to = first_to
        self._in_task = app.current_worker_task is not None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **options: Any) -> Any:
        outgoing = Outgoing.of(body, options).within(settings().wire_limit_bytes)
        return self.send(outgoing, {name: options[name] for name in _HOW - {"serializer"} if name in options})

    def send(self, outgoing: Outgoing, how: dict[str, Any]) -> Any:
        """Publish this task; ``how`` are options that do not belong to its message."""
        if self._first_to:
            how |= {"routing_key": self._first_to, "declare": [self._app.amqp.queues[self._first_to]]}
        ledger, before = self._write_to_ledger(outgoing)
        if self._spool and ledger and ledger.has_spooled():
            return _spool(ledger, outgoing, before)  # behind those spooled earlier
        accepted: list[Accepted] = []

        def hand_over() -> Any:
            if not self._in_task:
                fleet().room.require()
            if not self._in_batch():
                return outgoing.accept_and_publish(self._producer, self._app, accepted, **how)
            accepted.append(outgoing.accept(self._app, must_know=True))
            _require_accepted(outgoing.task_id, accepted[-1])
            return outgoing.publish(self._producer, accepted[-1], **how)

        try:
            sent = self._patience(hand_over)
        except BaseException as error:
            if ledger and (self._spool or self._in_task) and is_away(error):
                log.warning("task %s waits in the ledger: %s", outgoing.task_id, error)
                return _spool(ledger, outgoing, before)
            # With a connection, the records may have accepted it although the answer was lost.
            unheard = not accepted and not (isinstance(error, BrokerUnreachable) and not error.may_have_run)
            take_back(ledger, outgoing.task_id, before, accepted, unheard=unheard)
            raise
        if ledger and not self._in_batch():
            _note(ledger, outgoing.task_id, RowState.PUBLISHED)
        return sent

    def _patience(self, action: Callable[[], Any]) -> Any:
        """Do it; inside a task, retry until the broker is back or the worker leaves."""
        host = self._app.host
        if not self._in_task or host is None:
            return action()
        again = Retrying(
            retry=retry_if_exception(is_away),
            wait=wait_random_exponential(max=5),
            stop=lambda _: host.is_leaving,
            reraise=True,
        )
        return again(action)

    def _write_to_ledger(self, outgoing: Outgoing) -> tuple[Ledger | None, RowState | None]:
        """Returns the ledger, and the state of the task's row before."""
        ledger = own_ledger(spool=self._spool)
        if ledger is None:
            return None, None
        try:
            before = ledger.write(outgoing.task_id, outgoing.queue, outgoing.text())
            _refuse_another(ledger, outgoing, before)
            return ledger, before
        except LedgerUnusable as error:
            if not self._in_task:
                raise
            log.error("task %s is published without a row in the ledger: %s", outgoing.task_id, error)
            return None, None

    def _in_batch(self) -> bool:
        """The message waits for its batch to be complete: the task is not published yet."""
        return getattr(getattr(self._producer, "_batch_local", None), "current", None) is not None


def own_ledger(*, spool: bool) -> Ledger | None:
    """This machine's ledger; None if it is turned off, and :class:`LedgerOff` if a task is to be spooled then."""
    ledger = fleet().ledger
    if ledger is None and spool:
        raise LedgerOff("a task cannot be spooled while TORCH_LEDGER=false; unset it, or enqueue without spool")
    return ledger


def _refuse_another(ledger: Ledger, outgoing: Outgoing, before: RowState | None) -> None:
    """Raise :class:`TaskIdTaken` if this machine enqueued another task under the id that has not ended yet."""
    if is_another(ledger, outgoing, before):
        ledger.take_back(outgoing.task_id, before, forgotten=False)
        raise id_taken(outgoing.task_id)


def is_another(ledger: Ledger, outgoing: Outgoing, known: RowState | None) -> bool:
    if known in (None, RowState.CLOSED, RowState.WITHDRAWN):
        return False
    text = ledger.message_of(outgoing.task_id)
    return bool(text) and fingerprint(Outgoing.read(str(text)).wire) != fingerprint(outgoing.wire)


def _spool(ledger: Ledger, outgoing: Outgoing, before: RowState | None) -> None:
    """Have the task wait in the ledger, if all that it is to begin after are there, too."""
    for task_id in outgoing.wire.get("after", ()):
        if ledger.state(task_id) is None:
            ledger.take_back(outgoing.task_id, before, forgotten=False)
            raise unknown_dependency(outgoing.task_id, task_id)
    _note(ledger, outgoing.task_id, RowState.SPOOLED)


def refusal(task_id: str, accepted: Accepted) -> InvalidTask | None:
    """Why the records have not accepted a task; None if they have."""
    if accepted.outcome is Acceptance.OTHER:
        return id_taken(task_id)
    return unknown_dependency(task_id, accepted.detail) if accepted.outcome is Acceptance.UNKNOWN else None


def _require_accepted(task_id: str, accepted: Accepted) -> None:
    if why := refusal(task_id, accepted):
        raise why


def unknown_dependency(task_id: str, awaited: str) -> UnknownDependency:
    return UnknownDependency(
        f"task {task_id} is to begin after {awaited}, and there is no such task; 'torch-tasks tasks' lists those that "
        "there are"
    )


def id_taken(task_id: str) -> TaskIdTaken:
    return TaskIdTaken(
        f"task {task_id} was accepted before with another spec, and stays as it is; 'torch-tasks task {task_id}' shows "
        "it; give this one another id, or none"
    )


def take_back(
    ledger: Ledger | None, task_id: str, before: RowState | None, accepted: Sequence[Accepted], *, unheard: bool
) -> None:
    """Remove a task from broker and ledger, because its sender gets an error."""
    forgotten = not unheard
    if any(answer.new_record for answer in accepted):
        try:
            fleet().records.forget(task_id)
        except BrokerAway:
            forgotten = False
    if ledger:
        ledger.take_back(task_id, before, forgotten=forgotten)


def _note(ledger: Ledger, task_id: str, state: RowState) -> None:
    """Set the state of the task's row; should that fail, the task is accepted and recovery finds it."""
    try:
        ledger.note(task_id, state)
    except LedgerUnusable as error:
        log.warning("task %s: %s", task_id, error)

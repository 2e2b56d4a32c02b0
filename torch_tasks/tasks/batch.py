"""Many tasks at once: noted in the ledger with one flush, all of them or none, and sent in few round trips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

from torch_tasks.app import ANNOUNCE_QUEUE, RUN, TorchApp, accepted, how_shown
from torch_tasks.broker.connection import broker_errors, is_away
from torch_tasks.caller import acting_as, caller
from torch_tasks.errors import BrokerUnreachable, InvalidTask, LedgerUnusable, PartlyAccepted
from torch_tasks.fleet import fleet
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import TaskSpec
from torch_tasks.model.traceparent import HEADER
from torch_tasks.signing.enforcement import signing_together
from torch_tasks.store.ledger import RowState
from torch_tasks.store.task_fields import is_same
from torch_tasks.store.task_outcomes import Accepted, NewTask
from torch_tasks.tasks import set_aside
from torch_tasks.tasks.publishing import (
    Outgoing,
    how_published,
    id_taken,
    is_another,
    own_ledger,
    refusal,
    take_back,
    unknown_dependency,
)
from torch_tasks.tasks.recorded_asker import asker_in
from torch_tasks.transport.joining import Placing, joined

log = logging.getLogger(__name__)

CHUNK = 100
"""So many tasks are sent in one round trip."""


def made_ready(specs: Sequence[TaskSpec], app: TorchApp, traceparent: str | None) -> list[Outgoing]:
    """The messages of these tasks, as Celery makes them; :class:`InvalidTask` if one is too large."""
    ready: list[Outgoing] = []
    parent = app.current_worker_task
    family = {"root_id": parent.request.root_id or parent.request.id, "parent_id": parent.request.id} if parent else {}
    who = caller()
    with nullcontext() if who.agent else acting_as(who):  # who asks is looked up once, and not for each
        for spec in specs:
            accepted(spec)
            queue = queue_for(spec)
            message = app.amqp.create_task_message(
                spec.id, RUN, (spec.wire(),), {}, reply_to=app.thread_oid, **how_shown(spec, queue), **family
            )
            headers = {HEADER: traceparent} if traceparent else None
            app.amqp.send_task_message(
                None, RUN, message, queue=queue, priority=spec.priority.step, headers=headers, into=ready
            )
    return ready


class Batch:
    """Tasks that are accepted together; one that is to begin after another of them stands behind it."""

    def __init__(self, tasks: Sequence[Outgoing], app: TorchApp, *, spool: bool) -> None:
        self._tasks = tasks
        self._app = app
        self._spool = spool
        self._ledger = own_ledger(spool=spool)
        self._before: dict[str, RowState | None] = {}
        self._unsent: dict[str, Exception] = {}
        self._refused: dict[str, Exception] = {}

    def accept(self) -> set[str]:
        """Note all in the ledger, then send them; returns those that wait on this disk for the broker.

        Raises what enqueueing one of them would, as far as can be known before, and then nothing is noted. From the
        moment in which they are in the ledger, recovery sends what this process does not. :class:`PartlyAccepted` if
        only then it shows that some cannot be accepted, or without a ledger, that the broker is away.
        """
        self._require_acceptable()
        ids = [task.task_id for task in self._tasks]
        if self._ledger:
            before = self._ledger.write_all((task.task_id, task.queue, task.text()) for task in self._tasks)
            self._before = dict(zip(ids, before, strict=True))
            if self._ledger.has_spooled():  # they come behind those spooled earlier
                self._note(ids, RowState.SPOOLED)
                return set(ids)
        self._send_all()
        if self._unsent and self._ledger:
            log.warning("%d tasks wait in the ledger: %s", len(self._unsent), next(iter(self._unsent.values())))
            self._note(list(self._unsent), RowState.SPOOLED)
        else:
            self._refused |= self._unsent
        self._raise_refusals()
        return set(self._unsent)

    def _require_acceptable(self) -> None:
        ids = [task.task_id for task in self._tasks]
        awaited = sorted({one for task in self._tasks for one in task.wire.get("after", ())} - set(ids))
        noted = self._ledger.states(ids) if self._ledger else {}
        unknown = self._unknown_to_broker(awaited)
        for task in self._tasks:
            for one in task.wire.get("after", ()):
                if one in unknown:
                    raise unknown_dependency(task.task_id, one)
            if self._ledger and is_another(self._ledger, task, noted.get(task.task_id)):
                raise id_taken(task.task_id)

    def _unknown_to_broker(self, awaited: Sequence[str]) -> set[str]:
        """Which of these tasks do not exist; raises also if the id of one of the batch is taken."""
        of = fleet()
        try:
            of.room.require()
            known = of.records.known([task.task_id for task in self._tasks])
            accounts = dict(zip(known, of.records.accounts(known), strict=True)) if known else {}
            for task in self._tasks:
                if (account := accounts.get(task.task_id)) and not is_same(account, task.wire):
                    raise id_taken(task.task_id)
            return {one for one, found in zip(awaited, of.records.outlines(awaited), strict=True) if not found}
        except BrokerUnreachable:
            if not self._spool or self._ledger is None:
                raise
            return {one for one in awaited if self._ledger.state(one) is None}

    def _send_all(self) -> None:
        try:
            for start in range(0, len(self._tasks), CHUNK):
                left = self._tasks[start:]
                self._send(left[:CHUNK])
            left = ()
            self._release_early()
        except BrokerUnreachable as error:
            self._unsent |= {task.task_id: error for task in left}

    def _send(self, chunk: Sequence[Outgoing]) -> None:
        """Give these tasks their records, and put their messages where they belong, in one round trip."""
        with broker_errors():
            placings = self._placings(chunk)
        answers = fleet().records.accept_all(map(_new_task, chunk, placings))
        sent, new_queues = [], set()
        for task, answer in zip(chunk, answers, strict=True):
            if why := refusal(task.task_id, answer) if isinstance(answer, Accepted) else answer:
                (self._unsent if is_away(why) else self._refused)[task.task_id] = why
            else:
                sent.append(task.task_id)
            if isinstance(answer, Accepted) and answer.new_queue:
                new_queues.add(task.queue)
        with broker_errors():
            for queue in sorted(new_queues):
                self._app.control.broadcast(ANNOUNCE_QUEUE, arguments={"queue": queue})
        self._note(sent, RowState.PUBLISHED)

    def _placings(self, chunk: Sequence[Outgoing]) -> list[Placing]:
        """Where the messages of these tasks are to lie."""
        placings: list[Placing] = []
        with ExitStack() as stack:
            producer = stack.enter_context(self._app.producer_or_acquire())
            stack.enter_context(joined(placings.append))
            stack.enter_context(signing_together())
            declared: set[str] = set()
            for task in chunk:
                how = {} if task.queue in declared else how_published(self._app, task.queue)
                declared.add(task.queue)
                producer.publish(task.body, **task.options, **how)
        return placings

    def _note(self, ids: Sequence[str], state: RowState) -> None:
        """Set the state of these rows; should that fail, the tasks are accepted and recovery finds them."""
        try:
            if self._ledger:
                self._ledger.note_all(ids, state)
        except LedgerUnusable as error:
            log.warning("%d tasks: %s", len(ids), error)

    def _release_early(self) -> None:
        """Look after those for which a task had ended when they were accepted to begin after it."""
        after = {task.task_id: task.wire["after"] for task in self._tasks if task.wire.get("after")}
        awaited = sorted({one for ones in after.values() for one in ones})
        outlines = fleet().records.outlines(awaited)
        ended = {one for one, found in zip(awaited, outlines, strict=True) if found and found.state.ended}
        set_aside.settle([task_id for task_id, ones in after.items() if not ended.isdisjoint(ones)], fleet())

    def _raise_refusals(self) -> None:
        for task_id, why in self._refused.items():
            unheard = not isinstance(why, InvalidTask)
            take_back(self._ledger, task_id, self._before.get(task_id), (), unheard=unheard)
        if not self._refused:
            return
        if len(self._refused) == len(self._tasks):
            raise next(iter(self._refused.values()))
        raise PartlyAccepted.of(len(self._tasks), self._refused)


def _new_task(task: Outgoing, placing: Placing) -> NewTask:
    headers = task.options["headers"]
    return NewTask(task.task_id, task.wire, task.queue, asker_in(headers), headers.get(HEADER), placing)

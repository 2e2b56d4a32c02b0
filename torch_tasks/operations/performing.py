"""Carrying an operation out in this process: may the caller, is the broker there, was it done before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch_tasks.broker.connection import broker_errors
from torch_tasks.errors import BrokerFull, BrokerUnreachable, LedgerUnusable
from torch_tasks.operations.once import once, with_id
from torch_tasks.operations.operation import Access, Asked, Operation, Reply
from torch_tasks.orchestration import holds
from torch_tasks.security.decision import require
from torch_tasks.settings import settings
from torch_tasks.tasks import recovery

log = logging.getLogger(__name__)


def perform_here(operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
    """Do what is asked for, if the caller may; with the same ``key``, a second time gets the first one's reply."""
    if key is not None and operation.access is Access.WRITE and "id" in type(asked).model_fields:
        asked, key = with_id(operation, asked, key), None  # the same id twice is done once
    require(operation.name, operation.right, operation.about(asked), operation.also(asked))
    if not operation.needs_broker:
        return operation.carry_out(asked)
    with _broker(operation.about(asked).task):
        if key is None or operation.access is Access.READ:
            return operation.carry_out(asked)
        return once(operation, asked, key)


@contextmanager
def _broker(task_id: str | None = None) -> Iterator[None]:
    """Put back first what the broker forgot. :class:`BrokerUnreachable` says if the task waits on this disk."""
    try:
        with broker_errors(settings().broker()):
            holds.announce_local_stop()
            try:
                recovery.settle()
            except (LedgerUnusable, BrokerFull) as error:  # reading the broker is possible all the same
                log.warning("%s", error)
            yield
    except BrokerUnreachable as error:
        if task_id is None or not recovery.is_spooled(task_id):
            raise
        raise BrokerUnreachable(
            f"task {task_id} waits on this machine's disk and is sent when the broker is back: {error}"
        ) from error

"""Telling the broker, before it is asked for something, what this machine knows and it forgot."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch_tasks.broker.connection import broker_errors
from torch_tasks.errors import BrokerFull, BrokerUnreachable, LedgerUnusable
from torch_tasks.orchestration import holds
from torch_tasks.settings import settings
from torch_tasks.tasks import recovery

log = logging.getLogger(__name__)


@contextmanager
def settled_broker(task_id: str | None = None) -> Iterator[None]:
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

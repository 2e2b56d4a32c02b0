"""Demanded queues: an agent worker reads each that its agent can serve, as soon as it hears of it."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.control import control_command

from torch_tasks.app import ANNOUNCE_QUEUE, app
from torch_tasks.hosting import AgentHost
from torch_tasks.routing import serves

log = logging.getLogger(__name__)


def serve(consumer: Any, host: AgentHost, queue: str) -> None:
    """Read this queue from now on, if the agent can do what comes through it."""
    info = host.info
    if serves(queue, info.role, info.abilities) and not consumer.task_consumer.consuming_from(queue):
        consumer.add_task_queue(queue)
        log.info("%s: serves %s", info.agent_id, queue)


@control_command(name=ANNOUNCE_QUEUE, args=[("queue", str)])
def announce_queue(state: Any, queue: str) -> None:
    """A task was sent to a queue that nobody had demanded before; every worker hears of it."""
    if app.host is not None:
        serve(state.consumer, app.host, queue)

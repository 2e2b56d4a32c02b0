"""Demanded queues: an agent worker reads each that its agent can serve, as soon as it hears of it, until it retires."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.control import control_command

from torch_tasks import keys
from torch_tasks.app import ANNOUNCE_QUEUE, RETIRE, app
from torch_tasks.model.host import AgentHost
from torch_tasks.model.routing import serves

log = logging.getLogger(__name__)


def serve(consumer: Any, host: AgentHost, queue: str) -> None:
    """Read this queue from now on, if the agent can do what comes through it."""
    info = host.info
    if host.retiring:
        return
    if serves(queue, info) and not consumer.task_consumer.consuming_from(queue):
        consumer.add_task_queue(queue)
        log.info("%s: serves %s", info.agent_id, queue)


def stop_serving(consumer: Any, host: AgentHost) -> None:
    """Read no queue any more; but the message of a task that the pane was left with still has to come."""
    own = keys.agent_queue(host.info.agent_id) if host.begun and not host.busy else None
    for queue in [queue.name for queue in consumer.task_consumer.queues]:
        if queue != own:
            consumer.cancel_task_queue(queue)


@control_command(name=RETIRE)
def retire(state: Any) -> dict[str, bool]:
    """An order to retire lies in the agent's folder."""
    if app.host is None:
        return {"ok": False}
    app.host.retire()
    if app.host.retiring:
        stop_serving(state.consumer, app.host)
    return {"ok": app.host.retiring}


@control_command(name=ANNOUNCE_QUEUE, args=[("queue", str)])
def announce_queue(state: Any, queue: str) -> None:
    """A task was sent to a queue that nobody had demanded before; every worker hears of it."""
    if app.host is not None:
        serve(state.consumer, app.host, queue)

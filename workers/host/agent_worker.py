"""What makes a Celery worker an agent worker: it hosts the agent, beats for it, and reads the queues it can serve."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import Any

import redis
from celery import bootsteps, signals

from torch_tasks.app import app
from torch_tasks.errors import BrokerUnreachable, StaleWriter, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.task import NOT_BEGUN
from torch_tasks.orchestration.housekeeping import tend
from torch_tasks.store.tasks import demanded
from torch_tasks.tasks.dead_letters import DeadLetters
from torch_tasks.tasks.run import cancelled
from torch_tasks.transport import LeaseKeeper
from torch_tasks.workers.host.demand import serve, stop_serving
from torch_tasks.workers.host.host import Host

log = logging.getLogger(__name__)


def host_agent(spec: AgentSpec) -> None:
    """Host this agent in this process, from now on."""
    host = Host(spec, fleet())
    host.open()
    app.host = host
    app.steps["worker"].add(HostStep)
    app.steps["consumer"].add(ServeStep)
    signals.worker_shutting_down.connect(lambda **_: host.detach(), weak=False)
    signals.task_revoked.connect(_revoked)
    LeaseKeeper.on_lost.append(lambda *_: host.look_again())
    LeaseKeeper.on_return.append(host.tell_accounts)
    LeaseKeeper.on_buried.append(lambda task_id, _: DeadLetters(fleet()).note_lost(task_id))
    host.resume()


def _revoked(request: Any, terminated: bool, **_: Any) -> None:
    """Celery dropped a task that somebody revoked while it was queued; one that was running is the host's business."""
    if not terminated:
        result = cancelled(request.id, "revoked before an agent began")
        with contextlib.suppress(TorchError):
            fleet().records.move(result.task_id, result.status, only_from=NOT_BEGUN, result=result.model_dump_json())


def hosted() -> Host:
    """The agent of this process."""
    assert isinstance(app.host, Host)
    return app.host


class HostStep(bootsteps.StartStopStep):
    """Lets go of the pane when the worker stops."""

    requires = ("celery.worker.components:Pool",)

    def close(self, worker: Any) -> None:
        """The worker begins to stop: the running task goes back, before the pool waits for it."""
        hosted().detach()

    def stop(self, worker: Any) -> None:
        """The worker has stopped."""
        hosted().close()

    terminate = stop


class ServeStep(bootsteps.StartStopStep):
    """Reads every demanded queue that the agent can serve, and says at intervals that the agent lives."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._known = 0

    def start(self, consumer: Any) -> None:
        """Begin to serve; again after each reconnection."""
        self._known = 0
        self._beat(consumer)
        self._timer = consumer.timer.call_repeatedly(fleet().settings.heartbeat_seconds, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop beating."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, consumer: Any) -> None:
        try:
            self._tell(consumer)
        finally:
            hosted().look()  # last: it wakes threads that would only wait for this one

    def _tell(self, consumer: Any) -> None:
        try:
            count = hosted().beat()
        except StaleWriter as error:
            log.critical("%s; stopping", error)
            hosted().look_again()  # what the pane works on is somebody else's by now
            os.kill(os.getpid(), signal.SIGTERM)
            return
        hosted().retire()
        if hosted().retiring:
            stop_serving(consumer, hosted())
        if count is None:
            return
        with contextlib.suppress(BrokerUnreachable, redis.RedisError):  # the next one who looks will do it
            tend(fleet())
        # An announcement can be missed, the number of queues can not.
        if count != self._known:
            for queue in sorted(demanded(fleet().client)):
                serve(consumer, hosted(), queue)
            self._known = count

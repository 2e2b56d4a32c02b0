"""What makes a Celery worker an agent worker: it hosts the agent, sends its heartbeat, and reads its queues."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from celery import bootsteps, signals
from celery.concurrency.thread import TaskPool
from celery.worker import state as worker_state
from celery.worker.control import control_command

from torch_tasks import keys
from torch_tasks.app import (
    ANNOUNCE_QUEUE,
    ANSWER,
    DIFF,
    EXPLAIN,
    LOOK,
    RESOURCES,
    RETIRE,
    SCROLLBACK,
    SHOW,
    TAKEOVER,
    app,
)
from torch_tasks.errors import AgentUnavailable, BrokerAway, StaleWriter, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.machine.fleet_keys import require_own_fleet
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.routing import serves
from torch_tasks.model.task import NOT_BEGUN, TaskResult
from torch_tasks.orchestration.housekeeping import run_if_overdue
from torch_tasks.store.tasks import demanded
from torch_tasks.system.log_records import log_as
from torch_tasks.system.loops import Loop
from torch_tasks.tasks import recovery, task_counts
from torch_tasks.tasks.dead_letters import DeadLetters, note_refused
from torch_tasks.workers.host.holds_watcher import HoldsWatcher
from torch_tasks.workers.host.host import Host
from torch_tasks.workers.host.takeover import PaneTakeover

log = logging.getLogger(__name__)

_END_SECONDS = 30.0
_LOG = 2
"""Celery has taken ``sys.stderr``; this is the file behind it."""


def host_agent(spec: AgentSpec) -> HoldsWatcher:
    """Host this agent in this process from now on; returns what applies pauses and stops to it."""
    require_own_fleet(fleet())
    host = Host(spec, fleet(), app.leases.intake)
    host.open()
    task_counts.begin(host.info)
    log_as(incarnation=host.info.incarnation)
    app.host = host
    app.steps["worker"].add(HostStep)
    app.steps["consumer"].add(ServeStep)
    signals.worker_shutting_down.connect(lambda **_: begin_to_end(host), weak=False)
    signals.task_revoked.connect(_revoked)
    app.leases.listeners.on_lost.append(lambda *_: host.look_at_task())
    app.leases.listeners.on_return += [host.put_back, recovery.restore_all]
    app.leases.listeners.on_buried.append(lambda task_id, _: DeadLetters(fleet()).note_lost(task_id))
    app.leases.listeners.on_refused.append(note_refused)
    host.resume()
    return host.holds


def begin_to_end(host: Host) -> None:
    """The worker was told to end; should it hang, it says where in its log, and is ended.

    As after a kill, nothing is lost: the pane goes on for the next worker. A signal's handler calls this.
    """
    faulthandler.dump_traceback_later(_END_SECONDS, exit=True, file=_LOG)
    host.detach()


def _revoked(request: Any, terminated: bool, **_: Any) -> None:
    """Celery dropped a queued task that was revoked; a running one is ended by :class:`AgentPool`."""
    if not terminated:
        result = TaskResult.cancelled(request.id, "revoked before an agent began")
        with contextlib.suppress(TorchError):
            fleet().records.move(result.task_id, result.status, only_from=NOT_BEGUN, result=result.model_dump_json())


def hosted() -> Host:
    """The agent of this process."""
    assert isinstance(app.host, Host)
    return app.host


class AgentPool(TaskPool):
    """One thread, whose task is ended by interrupting the agent in its pane."""

    def on_stop(self) -> None:
        """The worker stops: detach from the running task instead of waiting for it."""
        if app.host is not None:
            app.host.detach()
        super().on_stop()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """The running task was revoked, by Flower's button, ``AsyncResult.revoke`` or ``torch-tasks cancel``."""
        if app.host is not None:
            app.host.cancel(worker_state.revoked)


class HostStep(bootsteps.StartStopStep):
    """Restores what was enqueued on this machine, and leaves the pane to the next worker when this one stops."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        # A machine may have no node worker, which would do it more often.
        self._restoring = Loop("ledger", recovery.settle, pause=fleet().settings.takeover_seconds)

    def start(self, worker: Any) -> None:
        self._restoring.start()

    def close(self, worker: Any) -> None:
        """The worker begins to stop: detach from the running task before the pool waits for it."""
        hosted().detach()

    def stop(self, worker: Any) -> None:
        self._restoring.stop()
        hosted().close()

    terminate = stop


class ServeStep(bootsteps.StartStopStep):
    """Reads every demanded queue that the agent can serve, and sends the agent's heartbeat."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._known = 0
        self._house_due = 0.0
        self._trouble = ""

    def start(self, consumer: Any) -> None:
        """Called again after each reconnection."""
        self._known = 0
        self._beat(consumer)
        self._timer = consumer.timer.call_repeatedly(fleet().settings.heartbeat_seconds, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, consumer: Any) -> None:
        try:
            self._heartbeat(consumer)
            self._trouble = ""
        except TorchError as error:  # a timer's own error would come with its traceback each time
            if self._trouble != str(error):
                log.error("no heartbeat: %s", error)
            self._trouble = str(error)
        finally:
            hosted().look_after_agent()  # last: it wakes threads that would only wait for this one

    def _heartbeat(self, consumer: Any) -> None:
        try:
            count = hosted().beat()
        except StaleWriter as error:
            log.critical("%s; stopping", error)
            hosted().look_at_task()  # another worker hosts the agent now, and has its task
            os.kill(os.getpid(), signal.SIGTERM)
            return
        retire_if_ordered(consumer)
        if count is None:
            return
        self._keep_house()
        # An announcement of a queue can be missed; a change of their number cannot.
        if count != self._known:
            with contextlib.suppress(BrokerAway):  # the next heartbeat does it
                for queue in sorted(demanded(fleet().client)):
                    serve(consumer, queue)
                self._known = count

    def _keep_house(self) -> None:
        """Do the fleet's housekeeping now and then, in case no node worker does."""
        patience = fleet().settings.takeover_seconds
        if time.monotonic() >= self._house_due:
            self._house_due = time.monotonic() + patience
            with contextlib.suppress(BrokerAway):
                run_if_overdue(fleet(), patience)


def serve(consumer: Any, queue: str) -> None:
    """Read this queue from now on, if the agent can do its tasks."""
    host = hosted()
    if not host.is_retiring and serves(queue, host.info) and not consumer.task_consumer.consuming_from(queue):
        consumer.add_task_queue(queue)
        log.info("%s: serves %s", host.info.agent_id, queue)


def retire_if_ordered(consumer: Any) -> None:
    """Have the agent obey an order to retire: it reads no queue, except its own until its unfinished task has come."""
    host = hosted()
    host.retire()
    if not host.is_retiring:
        return
    own = keys.agent_queue(host.info.agent_id) if host.unfinished_task and not host.is_busy else None
    for queue in [queue.name for queue in consumer.task_consumer.queues]:
        if queue != own:
            consumer.cancel_task_queue(queue)


# ── control commands ─────────────────────────────────────────────────────────────────────────────────────────────
# A command is sent to all workers of the fleet or to one by name: also to node workers, which host no agent, and to an
# agent worker that does not host its agent yet.


@control_command(name=ANNOUNCE_QUEUE, args=[("queue", str)])
def announce_queue(state: Any, queue: str) -> None:
    """A task was sent to a queue that was not in demand: read it if the agent can do its tasks."""
    if app.host is not None:
        serve(state.consumer, queue)


@control_command(name=RETIRE)
def retire(state: Any) -> dict[str, bool]:
    """Obey the order to retire in the agent's folder."""
    if app.host is not None:
        retire_if_ordered(state.consumer)
    return {"ok": app.host is not None and hosted().is_retiring}


@control_command(name=ANSWER, args=[("task_id", str), ("reply", str), ("ticket", str)])
def answer(state: Any, task_id: str, reply: str, ticket: str) -> dict[str, bool]:
    """Pass the agent an answer that it waits for in this task; without a task, at its start."""
    return {"ok": app.host is not None and hosted().answer(task_id, reply, ticket)}


@control_command(name=LOOK)
def look(state: Any) -> dict[str, bool]:
    """Look at the record of the agent's task."""
    if app.host:
        hosted().look_at_task()
    return {"ok": app.host is not None}


@control_command(name=DIFF, args=[("task_id", str), ("ticket", str)])
def diff(state: Any, task_id: str, ticket: str) -> dict[str, bool]:
    """Publish what the agent changed in this task, to the one with the ticket."""
    return {"ok": app.host is not None and hosted().diffs.publish(task_id, ticket)}


@control_command(name=SHOW, args=[("drawn", bool)])
def show(state: Any, drawn: bool = False) -> dict[str, bool]:
    """Publish the agent's screen for a while: as text, or as rows with colours."""
    if app.host:
        hosted().screen.publish_for_a_while(drawn=drawn)
    return {"ok": app.host is not None}


@control_command(name=SCROLLBACK, args=[("lines", int), ("skipped", int)])
def scrollback(state: Any, lines: int, skipped: int) -> dict[str, Any]:
    """Rows from above the agent's screen, with their colours."""
    return _reply(lambda: hosted().screen.above(lines, skipped).model_dump(mode="json"))


@control_command(name=EXPLAIN)
def explain(state: Any) -> dict[str, Any]:
    """What the agent is doing, and the evidence for it."""
    return _reply(lambda: {"found": hosted().screen.explain()})


@control_command(name=TAKEOVER, args=[("act", str), ("text", str), ("keys", list)])
def takeover(state: Any, act: str, text: str = "", keys: Sequence[str] = ()) -> dict[str, Any]:
    """A person takes the agent's pane over, types into it, gives it back, or is still there."""
    return _reply(lambda: _at_the_pane(hosted().takeover, act, text, keys))


def _at_the_pane(takeover: PaneTakeover, act: str, text: str, keys: Sequence[str]) -> dict[str, Any]:
    match act:
        case "take":
            takeover.take()
        case "give back":
            takeover.give_back()
        case "type":
            takeover.type(text, tuple(keys))
        case "paste":
            takeover.paste(text)
    return {"person": takeover.stay()}


def _reply(reply: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The reply to a command that reads the agent's pane, or why there is none."""
    if app.host is None:
        return {"error": "it is just starting", "class": AgentUnavailable.__name__}
    try:
        return reply()
    except TorchError as error:
        return {"error": str(error), "class": type(error).__name__}


@control_command(name=RESOURCES)
def resources(state: Any) -> dict[str, Any]:
    """How much of this machine the agent's terminal uses."""
    return hosted().resources().model_dump(mode="json") if app.host else {}

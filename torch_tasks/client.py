"""``Torch``, the façade in Python."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch_tasks.broker.connection import broker_errors
from torch_tasks.caller import caller
from torch_tasks.errors import BrokerFull, BrokerUnreachable, LedgerUnusable, TaskNotFinished
from torch_tasks.facades.checkins import Checkins
from torch_tasks.facades.messages import NovaOrchestrator
from torch_tasks.fleet import fleet
from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.model.agent import AgentInfo, Lifetime, RetirementReport
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.handover import Handover
from torch_tasks.model.limits import Resources
from torch_tasks.model.message import Sent
from torch_tasks.model.node import NodeInfo
from torch_tasks.model.spawn import SpawnRequest
from torch_tasks.model.task import HistoryEntry, Permissions, Priority, TaskRecord, TaskResult, TaskSpec, TaskState
from torch_tasks.operations import tasks
from torch_tasks.operations.operation import WAIT_SECONDS, Nothing
from torch_tasks.orchestration import holds, staffing
from torch_tasks.orchestration.gone import forget, gone_agents
from torch_tasks.orchestration.holds import resources_of
from torch_tasks.orchestration.staffing import DrainReport, SpawnHandle, release, retire, spawn
from torch_tasks.settings import settings
from torch_tasks.tasks import recovery

log = logging.getLogger(__name__)


_FOLLOW_SECONDS = 1.0
"""How often :meth:`Task.follow` gives the record of a task whose state stays the same."""


class TaskFields(TypedDict, total=False):
    """The fields of a task besides its prompt; see :class:`TaskSpec`."""

    id: str | None
    role: str | None
    skills: Iterable[str]
    agent: str | None
    priority: Priority | str
    workdir: str | Path | None
    timeout: float | None
    deadline: datetime | None
    check: str | None
    check_rounds: int | None
    permissions: Permissions | str | None
    fresh: bool | None
    max_retries: int | None
    title: str | None
    after: str | Task | Iterable[str | Task]
    context: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None


class SpawnFields(TypedDict, total=False):
    """The fields of an agent besides its role, skills and kind; see :class:`SpawnRequest`."""

    agent_id: str | None
    node: str | None
    labels: Iterable[str]
    lifetime: Lifetime | str
    parent: str | None
    workdir: str | Path | None
    fresh: bool
    memory: str | int | None
    cpu: float | None
    processes: int | None


class Task:
    """One task that Torch accepted."""

    def __init__(self, task_id: str, link: Link | None = None) -> None:
        self.id = task_id
        self._link = link or own_link()

    def __repr__(self) -> str:
        return f"<Task {self.id}>"

    @property
    def status(self) -> TaskState:
        """The task's state now."""
        return self.record().state

    @property
    def spooled(self) -> bool:
        """Whether the task waits on this machine's disk, because the broker was away when it was enqueued."""
        return self._link.perform(tasks.is_spooled, self._itself)

    def record(self) -> TaskRecord:
        """The task's record; ``unroutable`` says that it waits and no online agent can do it."""
        return self._link.perform(tasks.get, self._itself)

    def history(self) -> list[HistoryEntry]:
        """The task's history, oldest first."""
        return self._link.perform(tasks.history, self._itself)

    def replay(self) -> None:
        """Queue a dead task again, with all its retries; it keeps its id and history."""
        self._link.perform(tasks.replay, self._itself)

    def result(self, timeout: float | None = None) -> TaskResult:
        """Wait for the task's end, successful or not; :class:`TaskNotFinished` after ``timeout`` seconds.

        ``result().raise_for_status()`` makes anything but success an exception.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            record = self._wait(WAIT_SECONDS, deadline)
            if record.state.ended:
                return record.result or TaskResult(task_id=self.id, status=record.state)
            if deadline is not None and time.monotonic() >= deadline:
                raise TaskNotFinished(
                    f"task {self.id} is {record.state} after {describe_duration(timeout or 0)}; it goes on, ask again "
                    "later"
                )

    def follow(self, timeout: float | None = None) -> Iterator[TaskRecord]:
        """The record now, after each change and about once a second, until the task ends or ``timeout`` is over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        record = self.record()
        yield record
        while not record.state.ended and (deadline is None or time.monotonic() < deadline):
            record = self._wait(_FOLLOW_SECONDS, deadline, since=record.state)
            yield record

    def answer(self, reply: str) -> str:
        """Answer the agent's question and return the outcome; :class:`NotAnswered` if the agent did not get it."""
        return self._link.perform(tasks.answer, tasks.GiveAnswer.build(task_id=self.id, reply=reply))

    def cancel(self) -> TaskState:
        """End the task at once if no agent has begun it, else interrupt its agent; returns the state before."""
        return self._link.perform(tasks.cancel, self._itself)

    def handoff(self, to: str, note: str = "", questions: Iterable[str] = ()) -> Handover:
        """Interrupt the task's agent and hand the task over to another one, or to any of a role.

        Raises :class:`AgentUnable`, :class:`TaskEnded`, :class:`NotYours` or :class:`InvalidHandover`.
        """
        asked = tasks.HandOver.build(task_id=self.id, to=to, note=note, questions=tuple(questions))
        return self._link.perform(tasks.handoff, asked)

    @property
    def _itself(self) -> tasks.OfTask:
        return tasks.OfTask.build(task_id=self.id)

    def _wait(self, seconds: float, deadline: float | None, since: TaskState | None = None) -> TaskRecord:
        """The record when the task has ended, or left this state, at the latest after so long."""
        if deadline is not None:
            seconds = max(0.0, min(seconds, deadline - time.monotonic()))
        return self._link.perform(tasks.wait, tasks.Wait(task_id=self.id, seconds=seconds, since=since))


class Torch:
    """The fleet, for a program that gives it work. Settings come from the environment and ``torch.toml``."""

    def __init__(self) -> None:
        self._link = own_link()

    def enqueue(
        self, prompt: str, *, agent_kind: str | None = None, spool: bool = False, **fields: Unpack[TaskFields]
    ) -> Task:
        """Hand a task to the fleet and return at once.

        It goes to a free agent with this ``role``, all of these ``skills`` and this ``agent_kind``, or to ``agent``
        alone, in the order of ``priority``; after ``deadline`` it is not begun. The agent works in ``workdir``, for at
        most ``timeout`` seconds; then the command ``check`` decides, which may send the task back ``check_rounds``
        times. ``permissions`` answers what a coding agent asks for, ``fresh`` starts a new program for the task,
        ``max_retries`` limits the tries after crashes of an agent. It begins when the tasks ``after`` have succeeded,
        and fails if one of them does not. ``title`` is what it is called in lists, reports and branches. ``context``
        is for the agent, ``metadata`` for the caller. Enqueueing the same ``id`` twice makes one task.

        Raises :class:`InvalidTask`, :class:`BrokerUnreachable` or :class:`LedgerUnusable`; then nothing was enqueued.
        With ``spool``, a task waits on this machine's disk while the broker is away.
        """
        asked = {name: value for name, value in fields.items() if value is not None}
        asked["skills"] = _words(fields.get("skills", ()))
        asked["after"] = _ids(fields.get("after") or ())
        if workdir := fields.get("workdir"):
            asked["workdir"] = str(workdir)
        request = tasks.Enqueue.build(prompt=prompt, agent_kind=agent_kind, spool=spool, **asked)
        return Task(self._link.perform(tasks.enqueue, request).id, self._link)

    def enqueue_all(self, specs: Iterable[TaskSpec], *, spool: bool = False) -> list[Task]:
        """Hand many tasks to the fleet, all of them or none; they may be ``after`` each other in any order.

        Raises what :meth:`enqueue` does, and then nothing was enqueued. From the moment in which all are in this
        machine's ledger none is lost: what this process cannot send is sent when the broker is back, or by others.
        """
        asked = tasks.EnqueueAll(tasks=tuple(specs), spool=spool)
        return [Task(one.id, self._link) for one in self._link.perform(tasks.enqueue_all, asked)]

    def task(self, task_id: str) -> Task:
        """A task that was accepted earlier, from any process."""
        return Task(task_id, self._link)

    def tasks(self, limit: int = 50, states: Collection[TaskState] = ()) -> list[TaskRecord]:
        """The latest tasks, newest first; if states are given, only those in one of them."""
        return self._link.perform(tasks.list_tasks, tasks.ListTasks.build(limit=limit, states=tuple(states)))

    def dead(self) -> list[TaskRecord]:
        """The tasks that ran out of retries, the latest first."""
        return self._link.perform(tasks.dead, Nothing()).tasks

    def agents(
        self,
        *,
        role: str | None = None,
        skills: Iterable[str] = (),
        online: bool | None = None,
        gone: bool | None = None,
    ) -> list[AgentInfo]:
        """The agents of this role that have all of these skills; those that are ``gone`` do not come back."""
        with _broker():
            agents = fleet().registry.agents()
            lost = gone_agents(fleet(), agents, fleet().nodes.nodes()) if gone is not None else set()
            return [
                info
                for info in agents
                if info.serves(role, skills) and online in (None, info.online) and gone in (None, info.agent_id in lost)
            ]

    def agent(self, agent_id: str) -> AgentInfo:
        """One agent, or :class:`AgentNotFound`."""
        with _broker():
            return fleet().registry.get_agent(agent_id)

    def resources(self, agent_id: str) -> Resources | None:
        """What an agent's terminal uses of its machine; None if its worker does not answer."""
        with _broker():
            return resources_of(fleet().registry.get_agent(agent_id))

    pause = staticmethod(holds.pause)
    resume = staticmethod(holds.resume)
    stop = staticmethod(holds.stop)
    start = staticmethod(holds.start)

    def nodes(self) -> list[NodeInfo]:
        """The machines of the fleet, with their capacity and the agents they keep."""
        with _broker():
            return fleet().nodes.nodes()

    def node(self, name: str) -> NodeInfo:
        """One machine, or :class:`NodeNotFound`."""
        with _broker():
            return fleet().nodes.get_node(name)

    def drain(self, node: str, *, hand_over: bool = False, timeout: float | None = None) -> DrainReport:
        """Take a machine out of use: no agent is started there, and its agents take no new tasks.

        They finish their tasks, or with ``hand_over`` hand them over to others of their roles. With ``timeout``,
        returns once no task runs there, or raises :class:`StillWorking`.
        """
        with _broker():
            drained = staffing.drain(node, hand_over_tasks=hand_over)
            if timeout is not None:
                staffing.await_empty(node, timeout)
            return drained

    def undrain(self, node: str) -> tuple[str, ...]:
        """Put a drained machine back to use; returns the agents that take tasks again."""
        with _broker():
            return staffing.undrain(node)

    def spawn(
        self,
        role: str,
        skills: Iterable[str] = (),
        kind: str = "shell",
        *,
        wait: bool = True,
        timeout: float | None = None,
        **where: Unpack[SpawnFields],
    ) -> SpawnHandle:
        """Start an agent on the machine with most room, and return when it is ready, or at once with ``wait=False``.

        In an agent's pane the ``parent`` is that agent; ``memory`` (``"2G"``), ``cpu`` and ``processes`` are limits.
        Raises :class:`SpawnRefused`, which names the limit that is reached, or :class:`SpawnFailed`.
        """
        fields = {"parent": caller().agent, **where, "labels": _words(where.get("labels", ()))}
        if workdir := where.get("workdir"):
            fields["workdir"] = str(workdir)
        request = SpawnRequest.build(role=role, skills=_words(skills), kind=kind, **fields)
        with _broker():
            asked = spawn(request)
            return asked.wait(timeout) if wait else asked

    def retire(self, agent_id: str, **how: Any) -> RetirementReport | None:
        """End an agent: it takes no new tasks, its pane is closed, and the fleet forgets it; returns the report.

        ``leave`` decides about its task: ``finish`` (the default), ``hand over`` or ``now``. ``note`` is kept. With
        ``wait=False``, or after ``timeout`` (:class:`StillWorking`), it retires by itself.
        """
        with _broker():
            return retire(agent_id, **how)

    def forget(self, agent_id: str) -> RetirementReport:
        """Remove an agent that does not come back, as with its machine; :class:`NotGone` if it may.

        Its tasks go to others, or have failed if they ask for it alone; its messages are dead, and senders hear of it.
        Should its machine return after all, it is registered again.
        """
        with _broker():
            return forget(agent_id)

    def release(self, agent_id: str) -> None:
        """Have an agent started again that is in quarantine, or that is declared but was retired."""
        with _broker():
            release(agent_id)

    def send(self, agent_id: str, text: str, **how: Any) -> Sent:
        """Send an agent a message; see :meth:`~torch_tasks.communication.NovaOrchestrator.send_message`."""
        return NovaOrchestrator(link=self._link).send_message(agent_id, text, **how)

    def ask(self, agent_id: str, text: str, timeout: float | None = None, **how: Any) -> str:
        """Ask an agent something and return its reply."""
        return NovaOrchestrator(link=self._link).ask(agent_id, text, timeout, **how).message.message

    @property
    def checkins(self) -> Checkins:
        """The scheduled notes and tasks."""
        return Checkins(link=self._link)

    def broadcast(self, text: str, **whom: Any) -> list[Sent]:
        """Send a message to every agent that is online and matches ``role``, ``skills`` and ``project``."""
        return NovaOrchestrator(link=self._link).broadcast(text, **whom)


def _ids(given: str | Task | Iterable[str | Task]) -> list[str]:
    tasks = [given] if isinstance(given, (str, Task)) else given
    return [one.id if isinstance(one, Task) else one for one in tasks]


def _words(given: Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


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

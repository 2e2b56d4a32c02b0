"""``Torch``, the façade in Python."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from torch_tasks import operations
from torch_tasks.caller import own_desk
from torch_tasks.client.far_task import FarTaskLink
from torch_tasks.client.staff import SpawnFields, SpawnHandle, await_empty, retire
from torch_tasks.client.task import Task, TaskFields, ids_of
from torch_tasks.facades.agents import words
from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.model.address import far_agent
from torch_tasks.model.agent import AgentInfo, RetirementReport, RetireMode
from torch_tasks.model.limits import Resources
from torch_tasks.model.message import Sent
from torch_tasks.model.node import NodeInfo
from torch_tasks.model.task import TaskRecord, TaskSpec, TaskState
from torch_tasks.operations.operation import Nothing
from torch_tasks.settings import settings
from torch_tasks.system.surrounding_span import surrounding_span

if TYPE_CHECKING:
    from torch_tasks.facades.checkins import Checkins
    from torch_tasks.orchestration.holds import HoldReport
    from torch_tasks.orchestration.staffing import DrainReport


class Torch:
    """The fleet, for a program that gives it work. Settings come from the environment and ``torch.toml``."""

    def __init__(
        self,
        *,
        server: str | None = None,
        token: str | None = None,
        fleet: str | None = None,
        link: Link | None = None,
    ) -> None:
        """The fleet of this machine's settings, or the one behind the ``server`` at this address, with a ``token``.

        ``fleet`` is the name that another fleet has in the settings (``[fleets.NAME]``).
        """
        self._link = link or (_link_to(fleet) if fleet else own_link(server, token))

    def enqueue(
        self, prompt: str, *, agent_kind: str | None = None, spool: bool = False, **fields: Unpack[TaskFields]
    ) -> Task:
        """Hand a task to the fleet and return at once.

        It goes to a free agent with this ``role``, all of these ``skills`` and this ``agent_kind``, or to ``agent``
        alone (``AGENT@FLEET`` is one of another fleet), in the order of ``priority``; after ``deadline`` it is not
        begun. The agent works in ``workdir``, for at most ``timeout`` seconds; then the command ``check`` decides,
        which may send the task back ``check_rounds`` times. ``permissions`` answers what a coding agent asks for,
        ``fresh`` starts a new program for the task, ``max_retries`` limits the tries after crashes of an agent. It
        begins when the tasks ``after`` have succeeded, and fails if one of them does not. ``title`` is what it is
        called in lists, reports and branches. ``context`` is for the agent, ``metadata`` for the caller. Enqueueing
        the same ``id`` twice makes one task.

        Raises :class:`InvalidTask`, :class:`BrokerUnreachable` or :class:`LedgerUnusable`; then nothing was enqueued.
        With ``spool``, a task waits on this machine's disk while the broker is away.
        """
        asked = {name: value for name, value in fields.items() if value is not None}
        asked["skills"] = words(fields.get("skills", ()))
        asked["after"] = ids_of(fields.get("after") or ())
        if workdir := fields.get("workdir"):
            asked["workdir"] = str(workdir)
        request = operations.tasks.Enqueue.build(
            prompt=prompt, agent_kind=agent_kind, spool=spool, traceparent=surrounding_span(), **asked
        )
        return Task(self._link.perform(operations.tasks.enqueue, request).id, self._link_of(request))

    def enqueue_many(self, asked: Iterable[TaskSpec | Mapping[str, Any] | str], *, spool: bool = False) -> list[Task]:
        """Hand many tasks to the fleet, all of them or none; returns them in their order.

        Each is a :class:`TaskSpec`, its fields or its prompt; they may be ``after`` each other in any order. This
        costs one flush to the disk and few round trips to the broker, however many they are.

        Raises what :meth:`enqueue` does, and then nothing was enqueued. From the moment in which all are in this
        machine's ledger none is lost: what this process cannot send is sent when the broker is back, or by others.
        :class:`PartlyAccepted` names those that were not accepted although others were: another process took an id
        at this moment, or the broker went away and there is no ledger.
        """
        specs = tuple(TaskSpec.of(one, {}) for one in asked)
        request = operations.tasks.EnqueueMany(tasks=specs, spool=spool, traceparent=surrounding_span())
        return [Task(one.id, self._link) for one in self._link.perform(operations.tasks.enqueue_many, request)]

    def _link_of(self, asked: operations.tasks.Enqueue) -> Link:
        """The link on which the task that was asked for is found: its fleet's, if this process may reach that."""
        far = far_agent(asked.agent)
        if far is None or own_desk() or far.fleet not in settings().fleets:
            return self._link
        return FarTaskLink(asked.id, self._link, _link_to(far.fleet))

    def task(self, task_id: str) -> Task:
        """A task that was accepted earlier, from any process."""
        return Task(task_id, self._link)

    def tasks(self, limit: int = 50, states: Collection[TaskState] = ()) -> list[TaskRecord]:
        """The latest tasks, newest first; if states are given, only those in one of them."""
        return self._link.perform(
            operations.tasks.list_tasks, operations.tasks.ListTasks.build(limit=limit, states=tuple(states))
        )

    def dead(self) -> list[TaskRecord]:
        """The tasks that ran out of retries, the latest first."""
        return self._link.perform(operations.tasks.dead, Nothing()).tasks

    def agents(
        self,
        *,
        role: str | None = None,
        skills: Iterable[str] = (),
        online: bool | None = None,
        gone: bool | None = None,
    ) -> list[AgentInfo]:
        """The agents of this role that have all of these skills; those that are ``gone`` do not come back."""
        asked = operations.agents.ListAgents.build(role=role, skills=words(skills), online=online, gone=gone)
        return self._link.perform(operations.agents.list_agents, asked)

    def agent(self, agent_id: str) -> AgentInfo:
        """One agent, or :class:`AgentNotFound`."""
        return self._link.perform(operations.agents.get, operations.agents.OfAgent.build(agent_id=agent_id))

    def resources(self, agent_id: str) -> Resources | None:
        """What an agent's terminal uses of its machine; None if its worker does not answer."""
        return self._link.perform(operations.agents.resources, operations.agents.OfAgent.build(agent_id=agent_id))

    def pause(
        self,
        agent: str | None = None,
        *,
        role: str | None = None,
        everybody: bool = False,
        reason: str = "",
        interrupt: bool = False,
    ) -> HoldReport:
        """Let one agent, all of a role, or all begin no new task; their messages wait.

        A running task goes on, or with ``interrupt`` goes back to its queue.
        """
        scope = {"agent": agent, "role": role, "everybody": everybody}
        return self._link.perform(
            operations.agents.pause, operations.agents.Pause.build(**scope, reason=reason, interrupt=interrupt)
        )

    def resume(
        self, agent: str | None = None, *, role: str | None = None, everybody: bool = False, reason: str = ""
    ) -> HoldReport:
        """Lift a pause of exactly this scope; :class:`NotHeld` if there is none."""
        scope = {"agent": agent, "role": role, "everybody": everybody}
        return self._link.perform(operations.agents.resume, operations.agents.HoldScope.build(**scope, reason=reason))

    def stop(self, reason: str = "", *, here: bool = False) -> HoldReport:
        """Stop the whole fleet, or with ``here`` this machine: no task begins, running ones are interrupted."""
        return self._link.perform(operations.fleet.stop, operations.fleet.StopOrder.build(reason=reason, here=here))

    def start(self, reason: str = "", *, here: bool = False) -> HoldReport:
        """Lift the fleet's stop, or with ``here`` this machine's own; :class:`NotHeld` if there is none."""
        return self._link.perform(operations.fleet.start, operations.fleet.StopOrder.build(reason=reason, here=here))

    def nodes(self) -> list[NodeInfo]:
        """The machines of the fleet, with their capacity and the agents they keep."""
        return self._link.perform(operations.nodes.list_nodes, Nothing())

    def node(self, name: str) -> NodeInfo:
        """One machine, or :class:`NodeNotFound`."""
        return self._link.perform(operations.nodes.get, operations.nodes.OfNode.build(node=name))

    def drain(self, node: str, *, hand_over: bool = False, timeout: float | None = None) -> DrainReport:
        """Take a machine out of use: no agent is started there, and its agents take no new tasks.

        They finish their tasks, or with ``hand_over`` hand them over to others of their roles. With ``timeout``,
        returns once no task runs there, or raises :class:`StillWorking`.
        """
        drained = self._link.perform(
            operations.nodes.drain, operations.nodes.Drain.build(node=node, hand_over=hand_over)
        )
        if timeout is not None:
            await_empty(node, timeout, self._link)
        return drained

    def undrain(self, node: str) -> tuple[str, ...]:
        """Put a drained machine back to use; returns the agents that take tasks again."""
        return self._link.perform(operations.nodes.undrain, operations.nodes.OfNode.build(node=node))

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
        fields = {**where, "labels": words(where.get("labels", ()))}
        if workdir := where.get("workdir"):
            fields["workdir"] = str(workdir)
        request = operations.agents.Spawn.build(role=role, skills=words(skills), kind=kind, **fields)
        asked = SpawnHandle(self._link.perform(operations.agents.spawn, request), self._link)
        return asked.wait(timeout) if wait else asked

    def retire(
        self,
        agent_id: str,
        *,
        leave: RetireMode | str = RetireMode.FINISH,
        note: str = "",
        wait: bool = True,
        timeout: float | None = None,
    ) -> RetirementReport | None:
        """End an agent: it takes no new tasks, its pane is closed, and the fleet forgets it; returns the report.

        ``leave`` decides about its task: ``finish`` (the default), ``hand over`` or ``now``. ``note`` is kept. With
        ``wait=False``, or after ``timeout`` (:class:`StillWorking`), it retires by itself.
        """
        return retire(agent_id, self._link, leave=leave, note=note, wait=wait, timeout=timeout)

    def forget(self, agent_id: str) -> RetirementReport:
        """Remove an agent that does not come back, as with its machine; :class:`NotGone` if it may.

        Its tasks go to others, or have failed if they ask for it alone; its messages are dead, and senders hear of it.
        Should its machine return after all, it is registered again.
        """
        return self._link.perform(operations.agents.forget, operations.agents.OfAgent.build(agent_id=agent_id))

    def release(self, agent_id: str) -> None:
        """Have an agent started again that is in quarantine, or that is declared but was retired."""
        self._link.perform(operations.agents.release, operations.agents.OfAgent.build(agent_id=agent_id))

    def send(self, agent_id: str, text: str, **how: Any) -> Sent:
        """Send an agent a message; see :meth:`~torch_tasks.communication.NovaOrchestrator.send_message`."""
        from torch_tasks.facades.messages import NovaOrchestrator

        return NovaOrchestrator(link=self._link).send_message(agent_id, text, **how)

    def ask(self, agent_id: str, text: str, timeout: float | None = None, **how: Any) -> str:
        """Ask an agent something and return its reply."""
        from torch_tasks.facades.messages import NovaOrchestrator

        return NovaOrchestrator(link=self._link).ask(agent_id, text, timeout, **how).message.message

    @property
    def checkins(self) -> Checkins:
        """The scheduled notes and tasks."""
        from torch_tasks.facades.checkins import Checkins

        return Checkins(link=self._link)

    def broadcast(self, text: str, **whom: Any) -> list[Sent]:
        """Send a message to every agent that is online and matches ``role``, ``skills`` and ``project``."""
        from torch_tasks.facades.messages import NovaOrchestrator

        return NovaOrchestrator(link=self._link).broadcast(text, **whom)


def _link_to(name: str) -> Link:
    from torch_tasks.link.elsewhere import link_to  # brings a client of HTTP, which few programs need

    return link_to(name)

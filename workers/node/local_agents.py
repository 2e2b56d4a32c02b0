"""The agents that are kept alive on this machine: a set that changes while the node worker runs, noted on disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from torch_tasks.errors import (
    BrokerAway,
    NotInQuarantine,
    RetireImpossible,
    StateFolderUnusable,
    TorchError,
)
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import (
    agents_to_retire,
    is_hosted,
    remove_retire_order,
    retire_order_in,
    write_retire_order,
)
from torch_tasks.model.agent import AgentSpec, RetireMode, RetireOrder
from torch_tasks.model.node import KeptAgent, KeptState
from torch_tasks.model.spawn import Spawned, SpawnState
from torch_tasks.orchestration.node_tasks import settle_spawn
from torch_tasks.orchestration.staffing import remove_agent
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.tasks.handover import hand_over
from torch_tasks.workers.node.retirement import Retirement
from torch_tasks.workers.node.supervisor import WorkerSupervisor

log = logging.getLogger(__name__)

_LAST_WORDS = 1000


class _RosterFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    spawned: dict[str, Spawned] = {}
    retired: tuple[str, ...] = ()
    """Agents that are declared and were retired: they are not started."""


class Roster:
    """The agents that are declared for this machine and those that were spawned on it, without those that retired."""

    def __init__(self, file: Path, declared: Sequence[AgentSpec]) -> None:
        self._file = file
        self._declared = {agent.id: agent for agent in declared}
        self._writing = threading.Lock()
        self._page = self._read()

    def agents(self) -> list[AgentSpec]:
        """Those to keep alive."""
        page = self._page
        declared = [agent for agent in self._declared.values() if agent.id not in page.retired]
        return declared + [one.agent for one in page.spawned.values() if one.agent_id not in self._declared]

    def spawned(self, agent_id: str) -> Spawned | None:
        """How this agent was spawned, if it was."""
        return self._page.spawned.get(agent_id)

    def all_spawned(self) -> list[Spawned]:
        """Every agent that was spawned here."""
        return list(self._page.spawned.values())

    def retired(self) -> list[AgentSpec]:
        """The declared agents that were retired."""
        return [self._declared[agent_id] for agent_id in self._page.retired if agent_id in self._declared]

    def add(self, spawned: Spawned) -> None:
        """Keep an agent that was spawned here."""
        with self._writing:
            retired = tuple(agent_id for agent_id in self._page.retired if agent_id != spawned.agent_id)
            self._write(_RosterFile(spawned={**self._page.spawned, spawned.agent_id: spawned}, retired=retired))

    def remove(self, agent_id: str) -> None:
        """Keep an agent no longer, also after the next start of the node worker."""
        with self._writing:
            spawned = {name: one for name, one in self._page.spawned.items() if name != agent_id}
            own = {agent_id} if agent_id in self._declared else set()
            self._write(_RosterFile(spawned=spawned, retired=tuple(sorted({*self._page.retired, *own}))))

    def reinstate(self, agent_id: str) -> AgentSpec | None:
        """Keep a declared agent again that was retired; nothing if there is no such one."""
        with self._writing:
            if agent_id not in self._page.retired or agent_id not in self._declared:
                return None
            retired = tuple(other for other in self._page.retired if other != agent_id)
            self._write(self._page.model_copy(update={"retired": retired}))
            return self._declared[agent_id]

    def _read(self) -> _RosterFile:
        try:
            return _RosterFile.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _RosterFile()
        except ValueError as error:
            raise StateFolderUnusable(f"{self._file} cannot be read: {error}; repair or remove it") from None

    def _write(self, page: _RosterFile) -> None:
        make_folder(self._file.parent)
        write_private(self._file, page.model_dump_json(indent=2) + "\n")
        self._page = page


class LocalAgents:
    """Keeps every agent of the roster alive, and no other, by a :class:`WorkerSupervisor` each."""

    def __init__(self, roster: Roster, fleet: Fleet) -> None:
        self._roster = roster
        self._fleet = fleet
        self._settings = fleet.settings
        self._retirement = Retirement(fleet)
        self._supervisors: dict[str, WorkerSupervisor] = {}
        self._changing = threading.RLock()
        self._leaving = False
        self.on_change: Callable[[], None] = lambda: None
        """Called after an agent has retired."""

    def start(self) -> None:
        """Keep all agents of the roster alive from now on."""
        for agent in self._roster.agents():
            self._supervise(agent)

    def stop(self) -> None:
        """End their workers; their panes live on."""
        with self._changing:
            self._leaving = True
            supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            supervisor.leaving.set()
        for supervisor in supervisors:
            supervisor.join()

    def kept(self) -> list[str]:
        """The agents whose workers are started again when they die."""
        return [agent.agent_id for agent in self.reports() if agent.state is not KeptState.QUARANTINED]

    def reports(self) -> list[KeptAgent]:
        """Every agent's state here, for the node's entry in the registry."""
        with self._changing:
            reports = [supervisor.report for supervisor in self._supervisors.values()]
        retired = [
            KeptAgent(agent_id=agent.id, role=agent.role, kind=agent.kind, state=KeptState.RETIRED)
            for agent in self._roster.retired()
        ]
        return sorted([*reports, *retired], key=lambda agent: agent.agent_id)

    # ── what node workers are asked to do ────────────────────────────────────────────────────────────────────────

    def start_agent(self, spawned: Spawned) -> None:
        """Keep an agent that has its place here; the same one twice is one, one that was given up is none."""
        known = [one for one in self._fleet.spawns.get_many([spawned.agent_id]) if one.request.id == spawned.request.id]
        if not known or known[0].state not in {SpawnState.RESERVED, SpawnState.READY}:
            return
        with self._changing:
            if self._roster.spawned(spawned.agent_id) is None:
                self._roster.add(spawned)
                log.info("%s: spawned for %s", spawned.agent_id, spawned.request.parent or "a person")
            self._supervise(spawned.agent)

    def retire_agent(self, agent_id: str, order: RetireOrder) -> None:
        """Have the agent end; raises :class:`RetireImpossible` or what handing its task over raises."""
        agent = self._agent(agent_id)
        info = self._fleet.registry.entry(agent_id)
        if order.mode is RetireMode.HAND_OVER and info and info.current_task:
            hand_over(info.current_task, info.role, order.note or f"{agent_id} retires", by=order.by)
        with self._changing:
            supervisor = self._supervisors.get(agent_id)
            if supervisor and supervisor.state is KeptState.QUARANTINED:
                order = order.model_copy(update={"mode": RetireMode.NOW})  # its worker would only die again
            write_retire_order(self._settings.state.agent(agent_id), order)
            self._supervise(agent)

    def release_agent(self, agent_id: str) -> None:
        """Try again an agent that is in quarantine, or that is declared here and was retired."""
        with self._changing:
            supervisor = self._supervisors.get(agent_id)
            if supervisor and supervisor.state is KeptState.QUARANTINED:
                self._supervise(supervisor.agent)
            elif agent := self._roster.reinstate(agent_id):
                self._supervise(agent)
            else:
                raise NotInQuarantine(f"agent {agent_id} is not in quarantine on {self._settings.node}")

    def _agent(self, agent_id: str) -> AgentSpec:
        with self._changing:
            if supervisor := self._supervisors.get(agent_id):
                return supervisor.agent
        info = self._fleet.registry.entry(agent_id)
        if info is None or info.node != self._settings.node:
            raise RetireImpossible(f"there is no agent {agent_id} on {self._settings.node}")
        return AgentSpec(id=agent_id, role=info.role, skills=info.skills, kind=info.kind, workdir=info.workdir)

    def _supervise(self, agent: AgentSpec) -> None:
        with self._changing:
            supervisor = self._supervisors.get(agent.id)
            if self._leaving or (supervisor and supervisor.is_alive()):
                return
            self._supervisors[agent.id] = WorkerSupervisor(agent, self._settings, self)
            self._supervisors[agent.id].start()

    # ── what supervisors report ──────────────────────────────────────────────────────────────────────────────────

    def worker_ended(self, agent_id: str, why: str) -> None:
        """A spawned agent whose worker dies before the agent is ready has failed; the reason goes to its record."""
        spawned = self._roster.spawned(agent_id)
        if spawned is None:
            return
        try:
            reason = f"{agent_id} did not start on {self._settings.node}: {why[-_LAST_WORDS:] or 'it said nothing'}"
            if settle_spawn(spawned).state is SpawnState.RESERVED:
                self._order_end(spawned, reason)
        except BrokerAway as error:
            log.warning("%s: %s", agent_id, error)

    def finish_retirement(self, agent: AgentSpec, order: RetireOrder) -> bool:
        """Do what is left of a retirement; false if it has to be tried again."""
        try:
            report = self._retirement.carry_out(agent, order)
            with self._changing:
                spawned = self._roster.spawned(agent.id)
                self._roster.remove(agent.id)
                self._supervisors.pop(agent.id, None)
                self.on_change()
                remove_agent(report, spawned, self._fleet)  # its id is free from now on, and may come here again
                remove_retire_order(self._settings.state.agent(agent.id))
        except (TorchError, OSError) as error:
            log.warning("%s: does not retire yet: %s", agent.id, error)
            return False
        return True

    # ── what is put right at intervals ───────────────────────────────────────────────────────────────────────────

    def reconcile(self, *, thoroughly: bool) -> None:
        """Make roster and broker agree, should either have missed something."""
        here = {spawned.agent_id: spawned for spawned in self._roster.all_spawned()}
        known = {spawned.agent_id: spawned for spawned in self._fleet.spawns.get_many(list(here))}
        for agent_id, spawned in here.items():
            if retire_order_in(self._settings.state.agent(agent_id)):
                continue
            other = known.get(agent_id)
            if other is None:
                self._fleet.spawns.restore(spawned.model_copy(update={"state": SpawnState.READY}))
            elif other.request.id != spawned.request.id or other.state in {SpawnState.LOST, SpawnState.FAILED}:
                self._order_end(spawned, "it was given up while its node was away")
        if thoroughly:
            for spawned in self._fleet.spawns.all():
                if spawned.node == self._settings.node and spawned.agent_id not in here:
                    self._start_missing(spawned)
        for agent_id in agents_to_retire(self._settings.state):
            if agent_id not in self._supervisors and not is_hosted(self._settings.state.agent(agent_id)):
                self._resume_retirement(agent_id)

    def _start_missing(self, spawned: Spawned) -> None:
        """Start an agent that the broker says is here, or note that it never came."""
        if spawned.state is SpawnState.LOST:
            self._fleet.spawns.settle(spawned, SpawnState.FAILED, spawned.reason)
        else:
            self.start_agent(spawned)

    def _resume_retirement(self, agent_id: str) -> None:
        try:
            self._supervise(self._agent(agent_id))
        except RetireImpossible:  # all was done but removing the order
            remove_retire_order(self._settings.state.agent(agent_id))

    def _order_end(self, spawned: Spawned, why: str) -> None:
        log.warning("%s: ends: %s", spawned.agent_id, why)
        order = RetireOrder(mode=RetireMode.NOW, by=self._settings.node, note=why)
        write_retire_order(self._settings.state.agent(spawned.agent_id), order)
        with self._changing:
            self._supervise(spawned.agent)

"""The agents that the node worker keeps alive: a set that changes while it runs, and is kept on disk."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from torch_tasks.errors import BrokerAway, NotInQuarantine, RetireImpossible, StateFolderUnusable, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import (
    agents_to_retire,
    is_hosted,
    remove_retire_order,
    retire_order_in,
    write_retire_order,
)
from torch_tasks.machine.warm import warm_parent
from torch_tasks.model.agent import AgentSpec, RetireMode, RetireOrder
from torch_tasks.model.node import KeptAgent, KeptState
from torch_tasks.model.spawn import Spawned, SpawnState
from torch_tasks.orchestration.node_tasks import settle_spawn
from torch_tasks.orchestration.staffing import remove_agent
from torch_tasks.state_folder import TMUX
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.tasks.handover import hand_over
from torch_tasks.workers.host.terminal import end_strays
from torch_tasks.workers.node.release_watch import ReleaseWatch
from torch_tasks.workers.node.retirement import Retirement
from torch_tasks.workers.node.supervisor import WorkerSupervisor
from torch_tasks.workers.tmux.server import AgentServer

log = logging.getLogger(__name__)

_LAST_WORDS = 1000
_GRACE = 1.0


class _RosterFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    spawned: dict[str, Spawned] = {}
    retired: tuple[str, ...] = ()
    """Declared agents that were retired: they are not started."""


class Roster:
    """The agents that are declared for this machine or were spawned on it, without those that retired."""

    def __init__(self, file: Path, declared: Sequence[AgentSpec]) -> None:
        self._file = file
        self._declared = {agent.id: agent for agent in declared}
        self._writing = threading.Lock()
        self._kept = self._read()

    def agents(self) -> list[AgentSpec]:
        """The agents to keep alive."""
        kept = self._kept
        declared = [agent for agent in self._declared.values() if agent.id not in kept.retired]
        return declared + [one.agent for one in kept.spawned.values() if one.agent_id not in self._declared]

    @property
    def spawned(self) -> Mapping[str, Spawned]:
        """Every agent that was spawned here, by its id."""
        return self._kept.spawned

    def retired(self) -> list[AgentSpec]:
        """The declared agents that were retired."""
        return [self._declared[agent_id] for agent_id in self._kept.retired if agent_id in self._declared]

    def add(self, spawned: Spawned) -> None:
        """Keep an agent that was spawned here."""
        with self._writing:
            retired = tuple(agent_id for agent_id in self._kept.retired if agent_id != spawned.agent_id)
            self._write(_RosterFile(spawned={**self._kept.spawned, spawned.agent_id: spawned}, retired=retired))

    def remove(self, agent_id: str) -> None:
        """Keep an agent no longer, also after the next start of the node worker."""
        with self._writing:
            spawned = {name: one for name, one in self._kept.spawned.items() if name != agent_id}
            own = {agent_id} if agent_id in self._declared else set()
            self._write(_RosterFile(spawned=spawned, retired=tuple(sorted({*self._kept.retired, *own}))))

    def reinstate(self, agent_id: str) -> AgentSpec | None:
        """Keep a declared agent again that was retired; None if it was not."""
        with self._writing:
            if agent_id not in self._kept.retired or agent_id not in self._declared:
                return None
            retired = tuple(other for other in self._kept.retired if other != agent_id)
            self._write(self._kept.model_copy(update={"retired": retired}))
            return self._declared[agent_id]

    def _read(self) -> _RosterFile:
        try:
            return _RosterFile.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _RosterFile()
        except ValueError as error:
            raise StateFolderUnusable(f"{self._file} cannot be read: {error}; repair or remove it") from None

    def _write(self, kept: _RosterFile) -> None:
        make_folder(self._file.parent)
        write_private(self._file, kept.model_dump_json(indent=2) + "\n")
        self._kept = kept


class LocalAgents:
    """Keeps every agent of the roster alive, and no other: each by a :class:`WorkerSupervisor`."""

    def __init__(self, roster: Roster, fleet: Fleet) -> None:
        self._roster = roster
        self._fleet = fleet
        self._settings = fleet.settings
        self._retirement = Retirement(fleet)
        self._releases = ReleaseWatch(fleet.settings)
        self._warm = warm_parent(fleet.settings)
        self._supervisors: dict[str, WorkerSupervisor] = {}
        self._changing = threading.RLock()
        self._leaving = False
        self.on_change: Callable[[], None] = lambda: None
        """Called after an agent has retired."""

    def start(self) -> None:
        if self._warm and self._roster.agents():
            self._warm.begin(dict(os.environ))
        self._end_strays()
        for agent in self._roster.agents():
            self._supervise(agent)

    def _end_strays(self) -> None:
        """End what is left of agents that were killed with their terminals and their workers, kept here or not."""
        for folder in self._settings.state.agents():
            is_dead = not is_hosted(folder) and AgentServer(folder / TMUX).listener() is None
            if is_dead and (ended := end_strays(folder.name, self._settings)):
                log.warning("%s: ended what a former life has left: %s", folder.name, ", ".join(map(str, ended)))

    def stop(self) -> None:
        """End the agents' workers; their panes live on."""
        with self._changing:
            self._leaving = True
            supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            supervisor.leaving.set()
        for supervisor in supervisors:
            supervisor.join()
        self._releases.stop()
        if self._warm:
            self._warm.stop(_GRACE)

    @property
    def has_spawned(self) -> bool:
        """Whether an agent was spawned on this machine that has not retired."""
        return bool(self._roster.spawned)

    def kept(self) -> list[str]:
        """The agents whose workers are started again when they die."""
        return [agent.agent_id for agent in self.reports() if agent.state is not KeptState.QUARANTINED]

    def reports(self) -> list[KeptAgent]:
        """Every agent's state here, for the node's entry in the registry."""
        with self._changing:
            reports = [supervisor.report for supervisor in self._supervisors.values()]
        for agent in self._roster.retired():
            reports.append(KeptAgent(agent_id=agent.id, role=agent.role, kind=agent.kind, state=KeptState.RETIRED))
        return sorted(reports, key=lambda agent: agent.agent_id)

    # ── what node workers are asked to do ────────────────────────────────────────────────────────────────────────

    def start_agent(self, spawned: Spawned) -> None:
        """Keep an agent that has its place here, unless its spawn was given up. Idempotent."""
        known = [one for one in self._fleet.spawns.get_many([spawned.agent_id]) if one.request.id == spawned.request.id]
        if not known or known[0].state not in {SpawnState.RESERVED, SpawnState.READY}:
            return
        with self._changing:
            if spawned.agent_id not in self._roster.spawned:
                self._roster.add(spawned)
                log.info("%s: spawned for %s", spawned.agent_id, spawned.request.parent or "a person")
            self._supervise(spawned.agent)

    def retire_agent(self, agent_id: str, order: RetireOrder) -> None:
        """Have the agent end; raises :class:`RetireImpossible`, or an error of handing its task over."""
        agent = self._agent(agent_id)
        info = self._fleet.registry.entry(agent_id)
        if order.mode is RetireMode.HAND_OVER and info and info.current_task:
            hand_over(info.current_task, info.role, order.note or f"{agent_id} retires", by=order.by)
        with self._changing:
            supervisor = self._supervisors.get(agent_id)
            if supervisor and supervisor.state is KeptState.QUARANTINED:
                order = order.model_copy(update={"mode": RetireMode.NOW})  # it has no worker to finish its task
            write_retire_order(self._settings.state.agent(agent_id), order)
            self._supervise(agent)

    def release_agent(self, agent_id: str) -> None:
        """Start an agent again that is in quarantine, or that is declared here and was retired."""
        with self._changing:
            supervisor = self._supervisors.get(agent_id)
            if supervisor and supervisor.state is KeptState.QUARANTINED:
                supervisor.forget_crashes()
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
            self._supervisors[agent.id] = WorkerSupervisor(agent, self._settings, self, self._warm)
            self._supervisors[agent.id].start()

    # ── what supervisors report ──────────────────────────────────────────────────────────────────────────────────

    def why_not_start(self, kind: str) -> str:
        """Why no agent of this kind is started now: the new release of its program is being tried, or is broken."""
        return self._releases.why_not_start(kind)

    def worker_ended(self, agent_id: str, why: str) -> None:
        """End a spawned agent whose worker died before the agent was ready; the reason goes to its record."""
        spawned = self._roster.spawned.get(agent_id)
        if spawned is None:
            return
        try:
            reason = f"{agent_id} did not start on {self._settings.node}: {why[-_LAST_WORDS:] or 'its log is empty'}"
            if settle_spawn(spawned).state is SpawnState.RESERVED:
                self._order_end(spawned, reason)
        except BrokerAway as error:
            log.warning("%s: %s", agent_id, error)

    def finish_retirement(self, agent: AgentSpec, order: RetireOrder) -> bool:
        """Do what is left of a retirement; false if it must be tried again."""
        try:
            report = self._retirement.carry_out(agent, order)
            with self._changing:
                spawned = self._roster.spawned.get(agent.id)
                self._roster.remove(agent.id)
                self._supervisors.pop(agent.id, None)
                self.on_change()
                remove_agent(report, spawned, self._fleet)  # its id is free from now on, and may come here again
                remove_retire_order(self._settings.state.agent(agent.id))
        except (TorchError, OSError) as error:
            log.warning("%s: its retirement is tried again: %s", agent.id, error)
            return False
        return True

    # ── at intervals ─────────────────────────────────────────────────────────────────────────────────────────────

    def reconcile(self, *, thoroughly: bool) -> None:
        """Make roster and broker agree, in case either missed something."""
        here = self._roster.spawned
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
        """Start an agent that the broker has on this node, or note that its spawn has failed."""
        if spawned.state is SpawnState.LOST:
            self._fleet.spawns.settle(spawned, SpawnState.FAILED, spawned.reason)
        else:
            self.start_agent(spawned)

    def _resume_retirement(self, agent_id: str) -> None:
        try:
            self._supervise(self._agent(agent_id))
        except RetireImpossible:  # only the order was left to remove
            remove_retire_order(self._settings.state.agent(agent_id))

    def _order_end(self, spawned: Spawned, why: str) -> None:
        log.warning("%s: retires now: %s", spawned.agent_id, why)
        order = RetireOrder(mode=RetireMode.NOW, by=self._settings.node, note=why)
        write_retire_order(self._settings.state.agent(spawned.agent_id), order)
        with self._changing:
            self._supervise(spawned.agent)

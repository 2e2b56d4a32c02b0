"""One machine of the fleet: the agents that are kept here, a set that changes while the node worker runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis

from torch_tasks.errors import BrokerUnreachable, NotInQuarantine, RetireImpossible, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import drop_order, is_hosted, order_in, ordered, write_order
from torch_tasks.model.agent import AgentSpec, Leave, RetireOrder
from torch_tasks.model.node import KeptAgent, KeptState
from torch_tasks.model.spawn import Spawned, SpawnState
from torch_tasks.orchestration.node_tasks import look_after
from torch_tasks.orchestration.staffing import strike_off
from torch_tasks.tasks.handover import hand_over
from torch_tasks.workers.node.keeper import Keeper
from torch_tasks.workers.node.retiring import Retirement
from torch_tasks.workers.node.roster import Roster

log = logging.getLogger(__name__)

_AWAY = (redis.RedisError, BrokerUnreachable)
_LAST_WORDS = 1000


class Machine:
    """Has every agent of the roster kept, and no other."""

    def __init__(self, roster: Roster, fleet: Fleet) -> None:
        self._roster = roster
        self._fleet = fleet
        self._settings = fleet.settings
        self._retirement = Retirement(fleet)
        self._keepers: dict[str, Keeper] = {}
        self._changing = threading.RLock()
        self._leaving = False
        self.on_change: Callable[[], None] = lambda: None
        """Called when an agent is not kept here any more."""

    def start(self) -> None:
        """Keep them all from now on."""
        for agent in self._roster.agents():
            self._keep(agent)

    def stop(self) -> None:
        """End their workers; their panes live on."""
        with self._changing:
            self._leaving = True
            keepers = list(self._keepers.values())
        for keeper in keepers:
            keeper.leaving.set()
        for keeper in keepers:
            keeper.join()

    def kept(self) -> list[str]:
        """The agents whose workers are started again when they die."""
        return [agent.agent_id for agent in self.told() if agent.state is not KeptState.QUARANTINED]

    def told(self) -> list[KeptAgent]:
        """How they all stand, for the fleet."""
        with self._changing:
            told = [keeper.told for keeper in self._keepers.values()]
        retired = [
            KeptAgent(agent_id=agent.id, role=agent.role, kind=agent.kind, state=KeptState.RETIRED)
            for agent in self._roster.retired()
        ]
        return sorted([*told, *retired], key=lambda agent: agent.agent_id)

    # ── what node workers are asked to do ────────────────────────────────────────────────────────────────────────

    def start_agent(self, spawned: Spawned) -> None:
        """Keep an agent that has its place here; the same one twice is one, one that was given up is none."""
        known = [one for one in self._fleet.spawns.some([spawned.agent_id]) if one.request.id == spawned.request.id]
        if not known or known[0].state not in {SpawnState.RESERVED, SpawnState.READY}:
            return
        with self._changing:
            if self._roster.spawned(spawned.agent_id) is None:
                self._roster.add(spawned)
                log.info("%s: spawned for %s", spawned.agent_id, spawned.request.parent or "somebody")
            self._keep(spawned.agent)

    def retire_agent(self, agent_id: str, order: RetireOrder) -> None:
        """Have the agent end; raises :class:`RetireImpossible` or what handing its task over raises."""
        agent = self._agent(agent_id)
        info = self._fleet.registry.entry(agent_id)
        if order.leave is Leave.HAND_OVER and info and info.current_task:
            hand_over(info.current_task, info.role, order.note or f"{agent_id} retires", by=order.by)
        with self._changing:
            keeper = self._keepers.get(agent_id)
            if keeper and keeper.state is KeptState.QUARANTINED:
                order = order.model_copy(update={"leave": Leave.NOW})  # its worker would only die again
            write_order(self._settings.agent_dir(agent_id), order)
            self._keep(agent)

    def release_agent(self, agent_id: str) -> None:
        """Try again an agent that is in quarantine, or that is declared here and was retired."""
        with self._changing:
            keeper = self._keepers.get(agent_id)
            if keeper and keeper.state is KeptState.QUARANTINED:
                self._keep(keeper.agent)
            elif agent := self._roster.reinstate(agent_id):
                self._keep(agent)
            else:
                raise NotInQuarantine(f"agent {agent_id} is not in quarantine on {self._settings.node}")

    def _agent(self, agent_id: str) -> AgentSpec:
        with self._changing:
            if keeper := self._keepers.get(agent_id):
                return keeper.agent
        info = self._fleet.registry.entry(agent_id)
        if info is None or info.node != self._settings.node:
            raise RetireImpossible(f"there is no agent {agent_id} on {self._settings.node}")
        return AgentSpec(id=agent_id, role=info.role, skills=info.skills, kind=info.kind, workdir=info.workdir)

    def _keep(self, agent: AgentSpec) -> None:
        with self._changing:
            keeper = self._keepers.get(agent.id)
            if self._leaving or (keeper and keeper.is_alive()):
                return
            self._keepers[agent.id] = Keeper(agent, self._settings, self)
            self._keepers[agent.id].start()

    # ── what keepers tell ────────────────────────────────────────────────────────────────────────────────────────

    def worker_ended(self, agent_id: str, why: str) -> None:
        """A spawned agent whose worker dies before it is ready has failed: whoever asked for it hears why."""
        spawned = self._roster.spawned(agent_id)
        if spawned is None:
            return
        try:
            reason = f"{agent_id} did not start on {self._settings.node}: {why[-_LAST_WORDS:] or 'it said nothing'}"
            if look_after(spawned).state is SpawnState.RESERVED:
                self._dismiss(spawned, reason)
        except _AWAY as error:
            log.warning("%s: %s", agent_id, error)

    def see_off(self, agent: AgentSpec, order: RetireOrder) -> bool:
        """Do what is left of a retirement; false if it has to be tried again."""
        try:
            farewell = self._retirement.see_off(agent, order)
            with self._changing:
                spawned = self._roster.spawned(agent.id)
                self._roster.strike(agent.id)
                self._keepers.pop(agent.id, None)
                self.on_change()
                strike_off(farewell, spawned, self._fleet)  # its id is free from now on, and may come here again
                drop_order(self._settings.agent_dir(agent.id))
        except (TorchError, redis.RedisError, OSError) as error:
            log.warning("%s: does not retire yet: %s", agent.id, error)
            return False
        return True

    # ── what is put right at intervals ───────────────────────────────────────────────────────────────────────────

    def reconcile(self, *, thoroughly: bool) -> None:
        """Have roster and broker agree, should either have missed something."""
        here = {spawned.agent_id: spawned for spawned in self._roster.all_spawned()}
        known = {spawned.agent_id: spawned for spawned in self._fleet.spawns.some(list(here))}
        for agent_id, spawned in here.items():
            if order_in(self._settings.agent_dir(agent_id)):
                continue
            other = known.get(agent_id)
            if other is None:
                self._fleet.spawns.restore(spawned.model_copy(update={"state": SpawnState.READY}))
            elif other.request.id != spawned.request.id or other.state in {SpawnState.LOST, SpawnState.FAILED}:
                self._dismiss(spawned, "it was given up while its node was away")
        if thoroughly:
            for spawned in self._fleet.spawns.all():
                if spawned.node == self._settings.node and spawned.agent_id not in here:
                    self._take_up(spawned)
        for agent_id in ordered(self._settings.state_dir):
            if agent_id not in self._keepers and not is_hosted(self._settings.agent_dir(agent_id)):
                self._finish_retirement(agent_id)

    def _take_up(self, spawned: Spawned) -> None:
        """The broker says that this agent is here, and it is not."""
        if spawned.state is SpawnState.LOST:
            self._fleet.spawns.settle(spawned, SpawnState.FAILED, spawned.reason, only_from=[SpawnState.LOST])
        else:
            self.start_agent(spawned)

    def _finish_retirement(self, agent_id: str) -> None:
        try:
            self._keep(self._agent(agent_id))
        except RetireImpossible:  # all was done but the last
            drop_order(self._settings.agent_dir(agent_id))

    def _dismiss(self, spawned: Spawned, why: str) -> None:
        log.warning("%s: ends: %s", spawned.agent_id, why)
        order = RetireOrder(leave=Leave.NOW, by=self._settings.node, note=why)
        write_order(self._settings.agent_dir(spawned.agent_id), order)
        with self._changing:
            self._keep(spawned.agent)

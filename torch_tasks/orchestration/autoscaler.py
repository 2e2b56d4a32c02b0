"""The autoscaler: has the pools grow by what waits for them."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from torch_tasks import keys
from torch_tasks.errors import SpawnRefused
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import Lifetime
from torch_tasks.model.fields import Model
from torch_tasks.model.spawn import Pool, SpawnRequest, SpawnState
from torch_tasks.orchestration.node_tasks import start_agent
from torch_tasks.orchestration.scaling import Decision, Pace, PoolState, backlogs, decide, shared_out, unserved

log = logging.getLogger(__name__)

_GROWING_SECONDS = 30
_ALIVE = (SpawnState.RESERVED, SpawnState.READY)


class Plan(Model):
    """What becomes of each pool, and for which queues there is none."""

    decisions: tuple[Decision, ...]
    unserved: tuple[str, ...] = ()
    """Queues in which tasks wait that no agent reads and no pool serves."""


class Autoscaler:
    """The pools that this process's settings declare, in one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._pools = fleet.settings.pools

    def plan(self) -> Plan:
        """What would be done now. Nothing is."""
        waiting, agents = backlogs(self._fleet), self._fleet.registry.agents()
        shares, now = shared_out(waiting, self._pools), self._now()
        return Plan(
            decisions=tuple(
                decide(state, shares.get(state.pool.name, []), agents, self._pace, now) for state in self._states()
            ),
            unserved=tuple(unserved(shares.get(None, []), agents)),
        )

    def step(self) -> Plan:
        """Do it, unless somebody is doing it at this moment; returns what was decided and done."""
        if not self._fleet.client.set(keys.SCALING, self._fleet.settings.node, nx=True, ex=_GROWING_SECONDS):
            return Plan(decisions=())
        try:
            plan = self.plan()
            pools = {pool.name: pool for pool in self._pools}
            done = tuple(self._grow(pools[decision.pool], decision) for decision in plan.decisions)
        finally:
            self._fleet.client.delete(keys.SCALING)
        return plan.model_copy(update={"decisions": done})

    def _grow(self, pool: Pool, decision: Decision) -> Decision:
        if not decision.grow:
            return decision
        lifetime = Lifetime.PERMANENT if decision.size < pool.min else Lifetime.TEMPORARY
        started, refusal = staff(pool, decision.grow, decision.size + decision.grow, lifetime, self._fleet)
        if started:
            self._fleet.client.hset(keys.POOLS_GROWN, pool.name, self._now().isoformat())
            log.info("pool %s grows by %s: %s", pool.name, ", ".join(started), "; ".join(decision.why))
        why = (*decision.why, *([f"starts {', '.join(started)}"] if started else []), *([refusal] if refusal else []))
        return decision.model_copy(update={"grow": len(started), "why": why})

    def _states(self) -> list[PoolState]:
        spawned, grown = self._fleet.spawns.all(), self._fleet.client.hgetall(keys.POOLS_GROWN)
        states = []
        for pool in self._pools:
            members = [one for one in spawned if one.request.pool == pool.name and one.state in _ALIVE]
            at: Any = grown.get(pool.name)
            states.append(
                PoolState(
                    pool=pool,
                    size=len(members),
                    starting=sum(one.state is SpawnState.RESERVED for one in members),
                    grown_at=datetime.fromisoformat(at) if at else None,
                )
            )
        return states

    def _now(self) -> datetime:
        seconds, micros = self._fleet.client.time()
        return datetime.fromtimestamp(seconds + micros / 1e6, UTC)

    @property
    def _pace(self) -> Pace:
        chosen = self._fleet.settings
        return Pace(
            wait_seconds=chosen.scale_wait_seconds,
            backlog_seconds=chosen.scale_backlog_seconds,
            cooldown_seconds=chosen.scale_cooldown_seconds,
            task_seconds=chosen.scale_task_seconds,
        )


def staff(pool: Pool, count: int, limit: int, lifetime: Lifetime, fleet: Fleet) -> tuple[Sequence[str], str]:
    """Start so many agents of a pool, which shall not have more than ``limit``; whom, and why there are not more."""
    started: list[str] = []
    for _ in range(count):
        request = SpawnRequest(
            id=uuid.uuid4().hex,
            labels=pool.labels,
            lifetime=lifetime,
            pool=pool.name,
            **pool.agent_fields,
        )
        try:
            spawned, _ = fleet.spawns.reserve(request, pool_limit=limit)
        except SpawnRefused as error:
            return started, str(error)
        start_agent.apply_async((json.loads(spawned.model_dump_json()),), queue=keys.node_queue(spawned.node))
        started.append(spawned.agent_id)
    return started, ""

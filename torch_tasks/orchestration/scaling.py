"""The autoscaler: pools of agents grow with the backlogs that wait for them."""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from pydantic import AwareDatetime

from torch_tasks import keys
from torch_tasks.errors import SpawnRefused
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo, Lifetime
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.fields import Model
from torch_tasks.model.routing import is_there, serves
from torch_tasks.model.spawn import Pool, SpawnRequest, SpawnState
from torch_tasks.orchestration.followups import mean_task_seconds
from torch_tasks.store.tasks import demanded
from torch_tasks.transport.envelope import message_id

log = logging.getLogger(__name__)

_GROWING_SECONDS = 30


class Backlog(Model):
    """The tasks that wait in one queue."""

    queue: str
    waiting: int
    oldest_seconds: float


def backlogs(fleet: Fleet) -> list[Backlog]:
    """Every queue in which a task waits for any able agent."""
    found = fleet.deliveries.backlogs(sorted(demanded(fleet.client)))
    return [
        Backlog(queue=queue, waiting=waiting, oldest_seconds=_oldest(fleet, messages))
        for queue, (waiting, messages) in found.items()
        if keys.is_task_queue(queue)
    ]


def _oldest(fleet: Fleet, messages: list[str]) -> float:
    """How many seconds ago the oldest of these tasks was accepted, by the broker's clock."""
    with fleet.client.pipeline(transaction=False) as pipe:
        pipe.time()
        for message in messages:
            pipe.zscore(keys.TASK_STATUS, message_id(message) or "")
        (seconds, micros), *accepted = pipe.execute()
    now = seconds + micros / 1e6
    return max((now - since / 1e6 for since in accepted if since), default=0.0)


def unserved(found: Collection[Backlog], agents: Collection[AgentInfo]) -> list[str]:
    """Those of these queues that no live agent reads."""
    there = [agent for agent in agents if is_there(agent)]
    return [one.queue for one in found if not any(serves(one.queue, agent) for agent in there)]


class Pace(Model):
    """How quickly pools grow: the settings ``TORCH_SCALE_…``."""

    wait_seconds: float
    backlog_seconds: float
    cooldown_seconds: float
    task_seconds: float


class PoolState(Model):
    """The agents of a pool as they are."""

    pool: Pool
    size: int = 0
    starting: int = 0
    """Those of them that are not ready yet."""
    grown_at: AwareDatetime | None = None


class GrowthDecision(Model):
    """By how many agents a pool grows, and why."""

    pool: str
    size: int
    grow: int = 0
    why: tuple[str, ...] = ()


class PoolWork(Model):
    """What waits for a pool, and the agents that could do it."""

    waiting: int
    oldest_seconds: float
    seconds_each: float
    free: int
    busy: int
    starting: int

    def missing(self, pace: Pace) -> int:
        """How many more agents it takes to do it in time; a busy agent counts if its task ends in time."""
        needed = min(self.waiting, max(1, ceil(self.waiting * self.seconds_each / pace.backlog_seconds)))
        there = self.free + self.starting + (self.busy if self.seconds_each <= pace.backlog_seconds else 0)
        late = self.oldest_seconds > pace.backlog_seconds and not (self.free or self.starting)
        return max(needed - there, int(late))

    def __str__(self) -> str:
        oldest, each = describe_duration(self.oldest_seconds), describe_duration(self.seconds_each)
        return (
            f"{self.waiting} waiting, the oldest for {oldest}, at about {each} each; "
            f"{self.free} free, {self.busy} busy, {self.starting} starting"
        )


def share_backlogs(backlogs: Iterable[Backlog], pools: Collection[Pool]) -> dict[str | None, list[Backlog]]:
    """Each backlog under the name of the least skilled pool that can serve it; under None if none can."""
    shares: dict[str | None, list[Backlog]] = {}
    for backlog in backlogs:
        able = [pool for pool in pools if serves(backlog.queue, pool)]
        chosen = min(able, key=lambda pool: len(pool.skills), default=None)
        shares.setdefault(chosen.name if chosen else None, []).append(backlog)
    return shares


def decide_growth(
    state: PoolState, backlogs: Collection[Backlog], agents: Collection[AgentInfo], pace: Pace, now: datetime
) -> GrowthDecision:
    """By how many agents a pool grows that has these backlogs, in a fleet of these agents."""
    pool, decision = state.pool, GrowthDecision(pool=state.pool.name, size=state.size)
    if state.size < pool.min:
        return _because(decision, f"{state.size} of at least {pool.min} agents", grow=pool.min - state.size)
    if not backlogs:
        return _because(decision, "no task waits for it; its temporary agents retire when idle for long")
    work = _work(state, backlogs, agents, pace)
    decision, missing = _because(decision, str(work)), work.missing(pace)
    if missing <= 0:
        return _because(decision, f"its agents will do it within {describe_duration(pace.backlog_seconds)}")
    if state.size >= pool.max:
        return _because(decision, f"{missing} more would be needed, but it is at its limit of {pool.max}")
    unstaffed = not (work.free or work.busy or work.starting)
    if not unstaffed and (reason := _reason_to_wait(state, work, pace, now)):
        return _because(decision, f"{missing} more would be needed, but {reason}")
    return _because(decision, f"{missing} more are needed", grow=min(missing, pool.max - state.size))


def _work(state: PoolState, backlogs: Collection[Backlog], agents: Collection[AgentInfo], pace: Pace) -> PoolWork:
    able = [agent for agent in agents if agent.online and any(serves(backlog.queue, agent) for backlog in backlogs)]
    return PoolWork(
        waiting=sum(backlog.waiting for backlog in backlogs),
        oldest_seconds=max(backlog.oldest_seconds for backlog in backlogs),
        seconds_each=mean_task_seconds(state.pool.role, agents, pace.task_seconds),
        free=sum(agent.free for agent in able),
        busy=sum(agent.current_task is not None for agent in able),
        starting=state.starting,
    )


def _reason_to_wait(state: PoolState, work: PoolWork, pace: Pace, now: datetime) -> str:
    """Why the pool does not grow yet; empty if it may."""
    if work.oldest_seconds < pace.wait_seconds:
        return (
            f"the oldest has waited for less than {describe_duration(pace.wait_seconds)}, and a live agent may take it"
        )
    if state.grown_at and (rest := state.grown_at + timedelta(seconds=pace.cooldown_seconds) - now) > timedelta():
        return f"it has just grown and pauses for {describe_duration(rest.total_seconds())}"
    return ""


def _because(decision: GrowthDecision, why: str, **changes: object) -> GrowthDecision:
    return decision.model_copy(update={**changes, "why": (*decision.why, why)})


class ScalingPlan(Model):
    decisions: tuple[GrowthDecision, ...]
    unserved: tuple[str, ...] = ()
    """Queues in which tasks wait, but no agent reads them and no pool serves them."""
    elsewhere: bool = False
    """Another process lets the pools grow at this moment, so nothing was decided."""


class Autoscaler:
    """The pools that this process's settings declare, in one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._pools = fleet.settings.pools

    def plan(self) -> ScalingPlan:
        """What :meth:`step` would do now."""
        waiting, agents = backlogs(self._fleet), self._fleet.registry.agents()
        shares, now = share_backlogs(waiting, self._pools), self._fleet.checkins.now()
        decisions = tuple(
            decide_growth(state, shares.get(state.pool.name, []), agents, self._pace, now) for state in self._states()
        )
        return ScalingPlan(decisions=decisions, unserved=tuple(unserved(shares.get(None, []), agents)))

    def step(self) -> ScalingPlan:
        """Let the pools grow, unless another process is doing so; returns what was decided and done."""
        if not self._fleet.client.set(keys.SCALING, self._fleet.settings.node, nx=True, ex=_GROWING_SECONDS):
            return ScalingPlan(decisions=(), elsewhere=True)
        try:
            plan = self.plan()
            pools = {pool.name: pool for pool in self._pools}
            done = tuple(self._grow(pools[decision.pool], decision) for decision in plan.decisions)
        finally:
            self._fleet.client.delete(keys.SCALING)
        return plan.model_copy(update={"decisions": done})

    def _grow(self, pool: Pool, decision: GrowthDecision) -> GrowthDecision:
        if not decision.grow:
            return decision
        lifetime = Lifetime.PERMANENT if decision.size < pool.min else Lifetime.TEMPORARY
        if lifetime is Lifetime.PERMANENT and not self._fleet.registry.has_heard_all():
            why = "it waits until the broker, which was started a moment ago, has heard of all agents"
            return _because(decision.model_copy(update={"grow": 0}), why)
        started, refusal = start_pool_agents(pool, decision.grow, decision.size + decision.grow, lifetime, self._fleet)
        done = decision.model_copy(update={"grow": len(started)})
        if started:
            self._fleet.client.hset(keys.POOLS_GROWN, pool.name, self._fleet.checkins.now().isoformat())
            log.info("pool %s grows by %s: %s", pool.name, ", ".join(started), "; ".join(decision.why))
            done = _because(done, f"starts {', '.join(started)}")
        return _because(done, refusal) if refusal else done

    def _states(self) -> list[PoolState]:
        snapshot, grown = self._fleet.spawns.snapshot(), self._fleet.client.hgetall(keys.POOLS_GROWN)
        sizes = Counter(member.pool for member in snapshot.members().values())
        starting = Counter(one.request.pool for one in snapshot.spawned if one.state is SpawnState.RESERVED)
        states = []
        for pool in self._pools:
            at: Any = grown.get(pool.name)
            grown_at = datetime.fromisoformat(at) if at else None
            size, beginning = sizes[pool.name], starting[pool.name]
            states.append(PoolState(pool=pool, size=size, starting=beginning, grown_at=grown_at))
        return states

    @property
    def _pace(self) -> Pace:
        chosen = self._fleet.settings
        return Pace(
            wait_seconds=chosen.scale_wait_seconds,
            backlog_seconds=chosen.scale_backlog_seconds,
            cooldown_seconds=chosen.scale_cooldown_seconds,
            task_seconds=chosen.scale_task_seconds,
        )


def start_pool_agents(
    pool: Pool, count: int, limit: int, lifetime: Lifetime, fleet: Fleet
) -> tuple[Sequence[str], str]:
    """Start ``count`` agents of a pool with room for ``limit``; returns which, and why not more."""
    from torch_tasks.orchestration.node_tasks import order_start

    started: list[str] = []
    for _ in range(count):
        request = SpawnRequest(
            id=uuid.uuid4().hex, labels=pool.labels, lifetime=lifetime, pool=pool.name, **pool.agent_fields
        )
        try:
            spawned, _ = fleet.spawns.reserve(request, pool_limit=limit)
        except SpawnRefused as error:
            return started, str(error)
        order_start(spawned)
        started.append(spawned.agent_id)
    return started, ""

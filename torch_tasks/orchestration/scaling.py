"""How many agents a pool should have: what waits for it, against who is free to do it.

Deciding reads nothing and changes nothing; it says why, in words that a person can check.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from math import ceil

from pydantic import AwareDatetime

from torch_tasks.models import AgentInfo, Model
from torch_tasks.routing import serves
from torch_tasks.spawning import Pool


class Backlog(Model):
    """What waits in one queue, and can be done by any agent that is able."""

    queue: str
    waiting: int
    oldest_seconds: float


class Pace(Model):
    """How quickly the fleet grows and shrinks; the settings say it."""

    wait_seconds: float
    backlog_seconds: float
    idle_seconds: float
    cooldown_seconds: float
    task_seconds: float


class PoolState(Model):
    """A pool as it is."""

    pool: Pool
    agents: tuple[AgentInfo, ...] = ()
    """Those of the pool that live."""
    starting: int = 0
    """Those that have their place and are not ready yet."""
    changed_at: AwareDatetime | None = None
    """When it was last made larger or smaller."""

    @property
    def size(self) -> int:
        """How many agents count against its limits."""
        return len(self.agents) + self.starting


class Decision(Model):
    """What becomes of a pool's size, and why."""

    pool: str
    size: int
    grow: int = 0
    retire: tuple[str, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def wanted(self) -> int:
        """The size that it shall have."""
        return self.size + self.grow - len(self.retire)


def shared_out(backlogs: Iterable[Backlog], pools: Collection[Pool]) -> dict[str | None, list[Backlog]]:
    """Each backlog under the name of the least skilled pool that can serve it; under nothing if none can."""
    shares: dict[str | None, list[Backlog]] = {}
    for backlog in backlogs:
        able = [pool for pool in pools if serves(backlog.queue, pool.role, {*pool.skills, pool.kind})]
        chosen = min(able, key=lambda pool: len(pool.skills), default=None)
        shares.setdefault(chosen.name if chosen else None, []).append(backlog)
    return shares


def seconds_each(pool: Pool, agents: Iterable[AgentInfo], unknown: float) -> float:
    """How long a task of this role took on average, by all its agents; ``unknown`` if none has ended yet."""
    known = [agent.performance_metrics for agent in agents if agent.role == pool.role]
    ended = sum(metrics.succeeded + metrics.failed for metrics in known)
    return sum(metrics.seconds for metrics in known) / ended if ended else unknown


def decide(
    state: PoolState, backlogs: Collection[Backlog], fleet: Collection[AgentInfo], pace: Pace, now: datetime
) -> Decision:
    """What becomes of one pool, for which these backlogs are."""
    pool = state.pool
    decision = Decision(pool=pool.name, size=state.size)
    if state.size < pool.min:
        return _told(decision, f"{state.size} of at least {pool.min} agents", grow=pool.min - state.size)
    if backlogs:
        return _for_backlog(decision, state, backlogs, fleet, pace, now)
    return _without_work(decision, state, pace, now)


def _for_backlog(
    decision: Decision,
    state: PoolState,
    backlogs: Collection[Backlog],
    fleet: Collection[AgentInfo],
    pace: Pace,
    now: datetime,
) -> Decision:
    waiting = sum(backlog.waiting for backlog in backlogs)
    oldest = max(backlog.oldest_seconds for backlog in backlogs)
    each = seconds_each(state.pool, fleet, pace.task_seconds)
    able = [agent for agent in fleet if agent.online and any(_serves(agent, backlog) for backlog in backlogs)]
    free = sum(agent.free for agent in able)
    needed = min(waiting, max(1, ceil(waiting * each / pace.backlog_seconds)))
    missing = needed - free - state.starting
    room = state.pool.max - state.size
    decision = _told(
        decision,
        f"{waiting} waiting, the oldest for {oldest:.0f} s, at about {each:.3g} s each: "
        f"{needed} more at work would do that within {pace.backlog_seconds:g} s",
        f"{free} free, {state.starting} starting",
    )
    if missing <= 0:
        return _told(decision, "they will do")
    if room <= 0:
        return _told(decision, f"it has its limit of {state.pool.max}")
    if able and oldest < pace.wait_seconds:
        return _told(decision, f"what waits for less than {pace.wait_seconds:g} s may be taken by who is there")
    if able and (rest := _rest(state, pace, now)) > 0:
        return _told(decision, f"it was changed a moment ago and rests for {rest:.0f} s")
    return _told(decision, f"grows by {min(missing, room)}", grow=min(missing, room))


def _without_work(decision: Decision, state: PoolState, pace: Pace, now: datetime) -> Decision:
    decision = _told(decision, "nothing waits for it")
    above = state.size - state.pool.min
    idle = sorted((since, agent.agent_id) for agent in state.agents if agent.free and (since := _idle_since(agent)))
    long = [agent_id for since, agent_id in idle if (now - since).total_seconds() >= pace.idle_seconds]
    if above <= 0:
        return _told(decision, f"it has its least, {state.pool.min}")
    if not long:
        return _told(decision, f"nobody has been idle for {pace.idle_seconds:g} s")
    if (rest := _rest(state, pace, now)) > 0:
        return _told(decision, f"it was changed a moment ago and rests for {rest:.0f} s")
    retire = tuple(long[:above])
    return _told(decision, f"idle for {pace.idle_seconds:g} s or longer: {', '.join(retire)}", retire=retire)


def _told(decision: Decision, *why: str, **changes: object) -> Decision:
    return decision.model_copy(update={**changes, "why": (*decision.why, *why)})


def _serves(agent: AgentInfo, backlog: Backlog) -> bool:
    return serves(backlog.queue, agent.role, agent.abilities)


def _idle_since(agent: AgentInfo) -> datetime:
    return max(agent.started_at, agent.performance_metrics.last_ended or agent.started_at)


def _rest(state: PoolState, pace: Pace, now: datetime) -> float:
    """Seconds until the pool may be changed again."""
    if state.changed_at is None:
        return 0.0
    return (state.changed_at + timedelta(seconds=pace.cooldown_seconds) - now).total_seconds()


def unserved(shares: Mapping[str | None, Collection[Backlog]], fleet: Collection[AgentInfo]) -> list[str]:
    """The queues for which there is neither a pool nor an agent."""
    return [
        backlog.queue
        for backlog in shares.get(None, ())
        if not any(agent.online and _serves(agent, backlog) for agent in fleet)
    ]

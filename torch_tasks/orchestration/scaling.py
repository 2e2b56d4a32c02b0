"""What waits in the queues that any able agent reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from math import ceil

from pydantic import AwareDatetime

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import Model
from torch_tasks.model.routing import serves
from torch_tasks.model.spawn import Pool
from torch_tasks.store.tasks import demanded
from torch_tasks.transport.wire import message_id


class Backlog(Model):
    """What waits in one queue."""

    queue: str
    waiting: int
    oldest_seconds: float


def backlogs(fleet: Fleet) -> list[Backlog]:
    """Every queue in which a task waits for whoever is able."""
    found = fleet.deliveries.backlogs(sorted(demanded(fleet.client)))
    return [
        Backlog(queue=queue, waiting=waiting, oldest_seconds=_oldest(fleet, messages))
        for queue, (waiting, messages) in found.items()
        if keys.is_task_queue(queue)
    ]


def _oldest(fleet: Fleet, messages: list[str]) -> float:
    """For how many seconds the oldest of these tasks has been accepted, by the broker's clock."""
    with fleet.client.pipeline(transaction=False) as pipe:
        pipe.time()
        for message in messages:
            pipe.zscore(keys.TASK_STATUS, message_id(message) or "")
        (seconds, micros), *accepted = pipe.execute()
    now = seconds + micros / 1e6
    return max((now - since / 1e6 for since in accepted if since), default=0.0)


def unserved(found: Collection[Backlog], agents: Collection[AgentInfo]) -> list[str]:
    """The queues that nobody who is there reads."""
    there = [agent for agent in agents if agent.online and not agent.retiring]
    return [one.queue for one in found if not any(serves(one.queue, agent.role, agent.abilities) for agent in there)]


class Pace(Model):
    """How quickly pools grow; the settings say it."""

    wait_seconds: float
    backlog_seconds: float
    cooldown_seconds: float
    task_seconds: float


class PoolState(Model):
    """A pool as it is."""

    pool: Pool
    size: int = 0
    """How many agents have their place in it."""
    starting: int = 0
    """Those of them that are not ready yet."""
    grown_at: AwareDatetime | None = None


class Decision(Model):
    """By how many agents a pool grows, and why."""

    pool: str
    size: int
    grow: int = 0
    why: tuple[str, ...] = ()


class Work(Model):
    """What waits for a pool, and who could do it."""

    waiting: int
    oldest_seconds: float
    seconds_each: float
    free: int
    busy: int
    starting: int

    def missing(self, pace: Pace) -> int:
        """How many agents more would do it in time. Who is busy counts if its task ends in time, too."""
        needed = min(self.waiting, max(1, ceil(self.waiting * self.seconds_each / pace.backlog_seconds)))
        there = self.free + self.starting + (self.busy if self.seconds_each <= pace.backlog_seconds else 0)
        late = self.oldest_seconds > pace.backlog_seconds and not (self.free or self.starting)
        return max(needed - there, int(late))

    def __str__(self) -> str:
        return (
            f"{self.waiting} waiting, the oldest for {self.oldest_seconds:.0f} s, at about {self.seconds_each:.3g} s "
            f"each; {self.free} free, {self.busy} busy, {self.starting} starting"
        )


def shared_out(backlogs: Iterable[Backlog], pools: Collection[Pool]) -> dict[str | None, list[Backlog]]:
    """Each backlog under the name of the least skilled pool that can serve it; under nothing if none can."""
    shares: dict[str | None, list[Backlog]] = {}
    for backlog in backlogs:
        able = [pool for pool in pools if serves(backlog.queue, pool.role, {*pool.skills, pool.kind})]
        chosen = min(able, key=lambda pool: len(pool.skills), default=None)
        shares.setdefault(chosen.name if chosen else None, []).append(backlog)
    return shares


def seconds_each(role: str, agents: Iterable[AgentInfo], unknown: float) -> float:
    """How long a task of this role took on average, by all its agents; ``unknown`` if none has ended yet."""
    known = [agent.performance_metrics for agent in agents if agent.role == role]
    ended = sum(metrics.succeeded + metrics.failed for metrics in known)
    return sum(metrics.seconds for metrics in known) / ended if ended else unknown


def decide(
    state: PoolState, backlogs: Collection[Backlog], agents: Collection[AgentInfo], pace: Pace, now: datetime
) -> Decision:
    """What becomes of one pool, for which these backlogs are, in a fleet of these agents."""
    pool, decision = state.pool, Decision(pool=state.pool.name, size=state.size)
    if state.size < pool.min:
        return _told(decision, f"{state.size} of at least {pool.min} agents", grow=pool.min - state.size)
    if not backlogs:
        return _told(decision, "nothing waits for it; who came for a backlog retires when idle for long")
    work = _work(state, backlogs, agents, pace)
    decision, missing = _told(decision, str(work)), work.missing(pace)
    if missing <= 0:
        return _told(decision, f"they will do it within {pace.backlog_seconds:g} s")
    if state.size >= pool.max:
        return _told(decision, f"{missing} more would be needed, but it has its limit of {pool.max}")
    nobody = not (work.free or work.busy or work.starting)
    if not nobody and (reason := _patience(state, work, pace, now)):
        return _told(decision, f"{missing} more would be needed, but {reason}")
    return _told(decision, f"{missing} more are needed", grow=min(missing, pool.max - state.size))


def _work(state: PoolState, backlogs: Collection[Backlog], agents: Collection[AgentInfo], pace: Pace) -> Work:
    able = [agent for agent in agents if agent.online and any(able_for(agent, backlog) for backlog in backlogs)]
    free = sum(agent.free for agent in able)
    return Work(
        waiting=sum(backlog.waiting for backlog in backlogs),
        oldest_seconds=max(backlog.oldest_seconds for backlog in backlogs),
        seconds_each=seconds_each(state.pool.role, agents, pace.task_seconds),
        free=free,
        busy=sum(agent.current_task is not None for agent in able),
        starting=state.starting,
    )


def able_for(agent: AgentInfo, backlog: Backlog) -> bool:
    """The agent reads the queue of this backlog."""
    return serves(backlog.queue, agent.role, agent.abilities)


def _patience(state: PoolState, work: Work, pace: Pace, now: datetime) -> str:
    """Why nothing is done yet, if nothing is."""
    if work.oldest_seconds < pace.wait_seconds:
        return f"whoever is there may take what has waited for less than {pace.wait_seconds:g} s"
    if state.grown_at and (rest := state.grown_at + timedelta(seconds=pace.cooldown_seconds) - now) > timedelta():
        return f"it grew a moment ago and rests for {rest.total_seconds():.0f} s"
    return ""


def _told(decision: Decision, why: str, **changes: object) -> Decision:
    return decision.model_copy(update={**changes, "why": (*decision.why, why)})

"""What a report says of a time, and how it is added up from the days of all machines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from enum import StrEnum
from statistics import linear_regression, median
from typing import Self

from torch_tasks.model import metrics
from torch_tasks.model.fields import Model
from torch_tasks.model.metrics import Metric
from torch_tasks.model.rollup import AgentDay, Counted, NodeDay, Stretch

_DAY_SECONDS = 86_400.0
_LEAST_DAYS = 3
"""Of fewer days no growth is told."""


class Presence(Model):
    """How long somebody was there, of the time for which that was declared."""

    name: str
    declared_seconds: float
    up: float | None
    """The share of it in which heartbeats came."""
    busy: float | None
    """The share of its presence in which it had a task."""
    waiting_seconds: float
    """How long it waited for a person."""

    @classmethod
    def of(cls, name: str, stretch: Stretch) -> Self:
        return cls(
            name=name,
            declared_seconds=stretch.declared,
            up=_share(stretch.up, stretch.declared),
            busy=_share(stretch.busy, stretch.up),
            waiting_seconds=stretch.waiting,
        )


class Spread(Model):
    """How long something took, in seconds; read from the bounds of a histogram, so within one of them."""

    name: str
    count: int
    p50: float | None
    p95: float | None
    p99: float | None


class Recovery(Model):
    """How long it took until all was well again after a kind of fault."""

    fault: str
    count: int
    median_seconds: float
    longest_seconds: float


class Spent(Model):
    """What an account, a role or an agent used."""

    name: str
    tokens: int
    cost_usd: float


class Unit(StrEnum):
    """What a number of the report counts."""

    COUNT = "count"
    SHARE = "share"
    SECONDS = "seconds"
    USD = "USD"


class Trend(Model):
    """A number of this time, and of as long a time before."""

    name: str
    unit: Unit
    now: float | None
    before: float | None


class Goal(Model):
    """What a fleet should reach, and whether it did."""

    name: str
    unit: Unit
    value: float | None
    goal: float
    is_met: bool | None
    """None if there was nothing to measure."""


class Headroom(Model):
    """Something that can be full."""

    name: str
    used: float
    limit: float
    growth_a_day: float | None
    """By the daily peaks; None of too few days."""
    days_left: float | None
    """Until it is full at this growth; None if it does not grow."""
    agents_left: int | None
    """For how many more agents there is room, if each takes what one takes now."""

    @property
    def share(self) -> float:
        return self.used / self.limit


class DayLine(Model):
    day: date
    succeeded: int
    failed: int
    tokens: int
    cost_usd: float
    waiting_seconds: float
    """How long agents waited for a person."""
    up: float | None
    """None if nobody was declared."""
    busy: float | None


class FleetReport(Model):
    since: date
    until: date
    """The last day, which is not over."""
    nodes: tuple[Presence, ...]
    roles: tuple[Presence, ...]
    agents: tuple[Presence, ...]
    succeeded: int
    failed: int
    cancelled: int
    completion: float | None
    """The share of the tasks that succeeded among those that did or failed."""
    spreads: tuple[Spread, ...]
    recoveries: tuple[Recovery, ...]
    tokens: int
    cost_usd: float
    accounts: tuple[Spent, ...]
    spending_roles: tuple[Spent, ...]
    spending_agents: tuple[Spent, ...]
    unpriced: tuple[Spent, ...]
    """The models without a price: their tokens are not in the cost."""
    goals: tuple[Goal, ...]
    trends: tuple[Trend, ...]
    rooms: tuple[Headroom, ...]
    """What is full first, first."""
    days: tuple[DayLine, ...]


_SPREADS = {
    "message delivered": metrics.MESSAGE_SECONDS,
    "task taken": metrics.TASK_QUEUE_SECONDS,
    "task's last try": metrics.TASK_RUN_SECONDS,
    "task ended": metrics.TASK_TOTAL_SECONDS,
    "dead agent worker replaced": metrics.WORKER_BACK_SECONDS,
}


def report_of(found: Iterable[NodeDay], since: date, until: date) -> FleetReport:
    """Add up the days from ``since`` to ``until``; those before are for the trends."""
    found = list(found)
    before = _Sums([day for day in found if since - (until - since) - timedelta(days=1) <= day.day < since])
    these = [day for day in found if since <= day.day <= until]
    sums = _Sums(these)
    dates = [since + timedelta(days=number) for number in range((until - since).days + 1)]
    return FleetReport(
        since=since,
        until=until,
        nodes=_presences((day.node, day.itself) for day in these),
        roles=_presences((agent.role, agent) for agent in sums.agents()),
        agents=_presences((name, agent) for day in these for name, agent in day.agents.items()),
        succeeded=sums.ended("succeeded"),
        failed=sums.failed,
        cancelled=sums.ended("cancelled"),
        completion=sums.completion,
        spreads=tuple(_spread(name, metric, sums.numbers(metric)) for name, metric in _SPREADS.items()),
        recoveries=_recoveries(these),
        tokens=sums.tokens,
        cost_usd=sums.cost,
        accounts=sums.spent(lambda one: one.labels["account"]),
        spending_roles=sums.spent(lambda one: one.labels["role"]),
        spending_agents=sums.spent(lambda one: one.agent),
        unpriced=sums.unpriced(),
        goals=tuple(_goal(name, sums, these) for name in _GOALS),
        trends=tuple(
            Trend(name=name, unit=unit, now=read(sums), before=read(before)) for name, (unit, read) in _TRENDS.items()
        ),
        rooms=_rooms(these),
        days=tuple(_day_line(one, [day for day in these if day.day == one]) for one in dates),
    )


class _Sums:
    """What some days have together."""

    def __init__(self, days: Sequence[NodeDay]) -> None:
        self._days = days
        self._counted = [one for day in days for one in day.counted()]

    def agents(self) -> list[AgentDay]:
        return [agent for day in self._days for agent in day.agents.values()]

    def numbers(self, metric: Metric, wanted: Callable[[Counted], bool] = lambda one: True) -> list[float]:
        """The sum of a metric's counts, over all labels or those that are wanted."""
        rows = [one.numbers for one in self._counted if one.metric == metric.name and wanted(one)]
        return [sum(column) for column in zip(*rows, strict=False)]

    def ended(self, end: str) -> int:
        return int(sum(self.numbers(metrics.TASKS_ENDED, lambda one: one.labels["end"] == end)))

    @property
    def failed(self) -> int:
        return self.ended("failed") + self.ended("dead")

    @property
    def completion(self) -> float | None:
        return _share(self.ended("succeeded"), self.ended("succeeded") + self.failed)

    @property
    def tokens(self) -> int:
        return int(sum(self.numbers(metrics.TOKENS)))

    @property
    def cost(self) -> float:
        return sum(self.numbers(metrics.COST))

    @property
    def stretch(self) -> Stretch:
        total = Stretch()
        for agent in self.agents():
            total.add(agent)
        return total

    def p95(self, metric: Metric) -> float | None:
        return _spread("", metric, self.numbers(metric)).p95

    def unpriced(self) -> tuple[Spent, ...]:
        """The models without a price; the one with the most tokens first."""
        tokens = defaultdict[str, float](float)
        for one in self._counted:
            if one.metric == metrics.UNPRICED.name:
                tokens[one.labels["model"]] += one.numbers[0]
        found = [Spent(name=name, tokens=int(count), cost_usd=0.0) for name, count in tokens.items()]
        return tuple(sorted(found, key=lambda one: (-one.tokens, one.name)))

    def spent(self, by: Callable[[Counted], str]) -> tuple[Spent, ...]:
        """Tokens and cost, by what is told of a count; the most first."""
        tokens, cost = defaultdict[str, float](float), defaultdict[str, float](float)
        for one in self._counted:
            if one.metric == metrics.TOKENS.name:
                tokens[by(one)] += one.numbers[0]
            elif one.metric == metrics.COST.name:
                cost[by(one)] += one.numbers[0]
        found = [Spent(name=name, tokens=int(tokens[name]), cost_usd=cost[name]) for name in {*tokens, *cost}]
        return tuple(sorted(found, key=lambda one: (-one.cost_usd, -one.tokens, one.name)))


_TRENDS: Mapping[str, tuple[Unit, Callable[[_Sums], float | None]]] = {
    "tasks that succeeded": (Unit.COUNT, lambda sums: sums.ended("succeeded")),
    "completion": (Unit.SHARE, lambda sums: sums.completion),
    "uptime of agents": (Unit.SHARE, lambda sums: _share(sums.stretch.up, sums.stretch.declared)),
    "agents busy": (Unit.SHARE, lambda sums: _share(sums.stretch.busy, sums.stretch.up)),
    "agents waited for a person": (Unit.SECONDS, lambda sums: sums.stretch.waiting),
    "message delivered, p95": (Unit.SECONDS, lambda sums: sums.p95(metrics.MESSAGE_SECONDS)),
    "task taken, p95": (Unit.SECONDS, lambda sums: sums.p95(metrics.TASK_QUEUE_SECONDS)),
    "tokens": (Unit.COUNT, lambda sums: sums.tokens),
    "cost": (Unit.USD, lambda sums: sums.cost),
}
_GOALS: Mapping[str, tuple[Unit, float, Callable[[_Sums, Sequence[NodeDay]], float | None]]] = {
    "uptime of agents": (Unit.SHARE, 0.995, lambda sums, _: _share(sums.stretch.up, sums.stretch.declared)),
    "completion": (Unit.SHARE, 0.95, lambda sums, _: sums.completion),
    "message delivered, median": (
        Unit.SECONDS,
        0.1,
        lambda sums, _: _spread("", metrics.MESSAGE_SECONDS, sums.numbers(metrics.MESSAGE_SECONDS)).p50,
    ),
    "recovery, median": (Unit.SECONDS, 30.0, lambda _, days: _median_recovery(days)),
}
"""Of a share, what it should be at least; of seconds, at most."""


def _goal(name: str, sums: _Sums, days: Sequence[NodeDay]) -> Goal:
    unit, goal, read = _GOALS[name]
    value = read(sums, days)
    is_met = None if value is None else value >= goal if unit is Unit.SHARE else value <= goal
    return Goal(name=name, unit=unit, value=value, goal=goal, is_met=is_met)


def _median_recovery(days: Iterable[NodeDay]) -> float | None:
    took = [seconds for day in days for times in day.recoveries.values() for seconds in times]
    return median(took) if took else None


def _share(part: float, whole: float) -> float | None:
    return min(part / whole, 1.0) if whole else None


def _presences(stretches: Iterable[tuple[str, Stretch]]) -> tuple[Presence, ...]:
    sums = defaultdict[str, Stretch](Stretch)
    for name, stretch in stretches:
        sums[name].add(stretch)
    return tuple(Presence.of(name, stretch) for name, stretch in sorted(sums.items()))


def _spread(name: str, metric: Metric, numbers: Sequence[float]) -> Spread:
    if not numbers or not numbers[-2]:
        return Spread(name=name, count=0, p50=None, p95=None, p99=None)
    *below, count, _ = numbers
    p50, p95, p99 = (_quantile(share * count, below, metric.bounds) for share in (0.5, 0.95, 0.99))
    return Spread(name=name, count=int(count), p50=p50, p95=p95, p99=p99)


def _quantile(rank: float, below: Sequence[float], bounds: Sequence[float]) -> float:
    """The value of this rank, as if values were even within a bucket; of what is above all bounds, the last bound."""
    lower, known = 0.0, 0.0
    for bound, count in zip(bounds, below, strict=True):
        if count >= rank:
            share = (rank - known) / (count - known) if count > known else 1.0
            return lower + (bound - lower) * share
        lower, known = bound, count
    return bounds[-1]


def _recoveries(days: Iterable[NodeDay]) -> tuple[Recovery, ...]:
    seconds = defaultdict[str, list[float]](list)
    for day in days:
        for fault, took in day.recoveries.items():
            seconds[fault] += took
    return tuple(
        Recovery(fault=fault, count=len(took), median_seconds=median(took), longest_seconds=max(took))
        for fault, took in sorted(seconds.items())
        if took
    )


def _day_line(day: date, found: Sequence[NodeDay]) -> DayLine:
    sums = _Sums(found)
    stretch = sums.stretch
    return DayLine(
        day=day,
        succeeded=sums.ended("succeeded"),
        failed=sums.failed,
        tokens=sums.tokens,
        cost_usd=sums.cost,
        waiting_seconds=stretch.waiting,
        up=_share(stretch.up, stretch.declared),
        busy=_share(stretch.busy, stretch.up),
    )


# ── capacity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rooms(days: Sequence[NodeDay]) -> tuple[Headroom, ...]:
    """What can be full: each machine's disk and memory, the broker's memory and connections, the agents' time."""
    peaks = defaultdict[str, dict[date, tuple[float, float]]](dict)
    for day in days:
        for resource, peak in day.peaks.items():
            name = resource if resource.startswith("broker") else f"{resource} of {day.node}"
            known = peaks[name].get(day.day, (0.0, 0.0))
            peaks[name][day.day] = max(known, (peak.used, peak.limit))
    for role, by_day in _time_of_roles(days).items():
        peaks[f"time of agents: {role}"] = by_day
    agents = _agents_now(days)
    found = [_room(name, by_day, _agents_of(name, agents)) for name, by_day in sorted(peaks.items())]
    return tuple(sorted((room for room in found if room), key=_when_full))


def _time_of_roles(days: Sequence[NodeDay]) -> dict[str, dict[date, tuple[float, float]]]:
    """By role and day, of how many agents' time tasks took, and how many agents there were."""
    sums = defaultdict[str, dict[date, Stretch]](lambda: defaultdict(Stretch))
    for day in days:
        for agent in day.agents.values():
            sums[agent.role][day.day].add(agent)
    return {
        role: {day: (one.busy / _DAY_SECONDS, one.up / _DAY_SECONDS) for day, one in by_day.items()}
        for role, by_day in sums.items()
    }


def _agents_now(days: Sequence[NodeDay]) -> dict[str, int]:
    """How many agents each node had on its last day."""
    last = {day.node: day for day in sorted(days, key=lambda day: day.day)}
    return {node: sum(agent.up > 0 for agent in day.agents.values()) for node, day in last.items()}


def _agents_of(name: str, agents: Mapping[str, int]) -> int:
    """Among how many agents the use of something is shared; 0 if agents are not what it is used by."""
    if name.startswith("broker"):
        return sum(agents.values())
    return agents.get(name.removeprefix("memory of "), 0) if name.startswith("memory of ") else 0


def _room(name: str, by_day: Mapping[date, tuple[float, float]], agents: int) -> Headroom | None:
    used, limit = by_day[max(by_day)]
    if not limit:
        return None
    growth = None
    if len(by_day) >= _LEAST_DAYS:
        days = sorted(by_day)
        growth = linear_regression([float(day.toordinal()) for day in days], [by_day[day][0] for day in days]).slope
    left = max(limit - used, 0.0)
    return Headroom(
        name=name,
        used=used,
        limit=limit,
        growth_a_day=growth,
        days_left=left / growth if growth and growth > 1e-6 * limit else None,
        agents_left=int(left / (used / agents)) if agents and used else None,
    )


def _when_full(room: Headroom) -> tuple[bool, float]:
    """What grows comes by when it is full, then the rest by how full it is."""
    return (room.days_left is None, -room.share if room.days_left is None else room.days_left)

"""What the server shows of the whole fleet to Prometheus, read from the broker."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator

import redis

from torch_tasks import keys
from torch_tasks.broker.clock import in_ms
from torch_tasks.broker.memory import memory_of
from torch_tasks.caller import OPERATOR
from torch_tasks.errors import TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentInfo, AgentStatus
from torch_tasks.model.fields import now
from torch_tasks.monitoring.exposition import Measure, Readings
from torch_tasks.orchestration.attention import Need, NeedKind, needs
from torch_tasks.orchestration.scaling import Backlog, backlogs, unserved
from torch_tasks.system.tally import tally

OTHER = "other"
"""Stands for all roles that tasks ask for and no agent has: anybody could invent any number of them."""
_LATEST_MESSAGES = 1000
_FRESH_SECONDS = 1.0


def fleet_metrics(of: Callable[[], Fleet]) -> Readings:
    """What this process has counted, and how the fleet is; however many ask, it looks once a second at most."""
    return Readings(tally().series, _FleetLook(of).measures)


class _FleetLook:
    def __init__(self, of: Callable[[], Fleet]) -> None:
        self._of = of
        self._looking = threading.Lock()
        self._looked = -_FRESH_SECONDS
        self._seen: list[Measure] = []
        self._needed_since: dict[str, float] = {}

    def measures(self) -> list[Measure]:
        with self._looking:
            if time.monotonic() - self._looked >= _FRESH_SECONDS:
                self._seen = self._look()
                self._looked = time.monotonic()
            return self._seen

    def _look(self) -> list[Measure]:
        try:
            fleet = self._of()
            found, agents = needs(fleet), fleet.registry.agents()
            return [
                Measure(metrics.FLEET_READABLE, 1),
                *measures_of_agents(agents),
                *measures_of_backlogs(backlogs(fleet), agents),
                *self._measures_of_needs(fleet, found),
                *_measures_of_accounts(fleet, found),
                *_measures_of_nodes(fleet),
                *_measures_of_messages(fleet, agents),
                *_measures_of_time(fleet.client),
                *_measures_of_broker(fleet),
            ]
        except TorchError:
            return [Measure(metrics.FLEET_READABLE, 0)]

    def _measures_of_needs(self, fleet: Fleet, found: Collection[Need]) -> Iterator[Measure]:
        """How many there are of each kind, and how old the oldest is, whoever was started anew meanwhile."""
        known = {need: time.monotonic() - since for need, since in self._needed_since.items()}
        ages = fleet.need_times.ages([need.id for need in found], known)
        self._needed_since = {need: time.monotonic() - age for need, age in ages.items()}
        for kind in NeedKind:
            these = [ages[need.id] for need in found if need.kind is kind]
            yield Measure(metrics.PERSON_NEEDED, len(these), (kind,))
            yield Measure(metrics.PERSON_OLDEST, max(these, default=0.0), (kind,))


def measures_of_agents(agents: Iterable[AgentInfo]) -> Iterator[Measure]:
    """Those that left in order and are not there count as little as those that never were."""
    states: Counter[tuple[str, ...]] = Counter()
    busy, held = Counter[str](), Counter[str]()
    for agent in agents:
        if not agent.online and agent.left:
            continue
        states[agent.role, agent.state if agent.online else AgentStatus.OFFLINE] += 1
        busy[agent.role] += bool(agent.online and agent.current_task)
        held[agent.role] += bool(agent.online and (agent.paused or agent.stopped))
    yield from (Measure(metrics.AGENTS, count, labels) for labels, count in states.items())
    yield from (Measure(metrics.AGENTS_BUSY, count, (role,)) for role, count in busy.items())
    yield from (Measure(metrics.AGENTS_HELD, count, (role,)) for role, count in held.items())


def measures_of_backlogs(found: Collection[Backlog], agents: Collection[AgentInfo]) -> Iterator[Measure]:
    """The tasks that wait, by the role that they ask for."""
    roles = {agent.role for agent in agents} | {keys.ANY}
    lost = set(unserved(found, agents))
    for waiting, oldest, some in (
        (metrics.TASKS_WAITING, metrics.TASKS_OLDEST, found),
        (metrics.TASKS_UNROUTABLE, metrics.UNROUTABLE_OLDEST, [one for one in found if one.queue in lost]),
    ):
        by_role: defaultdict[str, list[Backlog]] = defaultdict(list)
        for one in some:
            role = keys.queue_demand(one.queue)[0] or keys.ANY
            by_role[role if role in roles else OTHER].append(one)
        for role, queues in sorted((by_role or {keys.ANY: []}).items()):
            yield Measure(waiting, sum(one.waiting for one in queues), (role,))
            yield Measure(oldest, max((one.oldest_seconds for one in queues), default=0), (role,))


def _measures_of_accounts(fleet: Fleet, found: Iterable[Need]) -> Iterator[Measure]:
    accounts = fleet.budgets.accounts()
    parked = {need.account for need in found if need.kind is NeedKind.LIMITED}
    for account in accounts:
        yield Measure(metrics.ACCOUNT_PARKED, account in parked, (account,))
    for line in fleet.budgets.lines(accounts):
        yield Measure(metrics.BUDGET_USED, line.used, (line.account, line.name))
        if line.limit:
            yield Measure(metrics.BUDGET_LIMIT, line.limit, (line.account, line.name))


def _measures_of_nodes(fleet: Fleet) -> Iterator[Measure]:
    for node in fleet.nodes.nodes():
        if node.left and not node.online:
            continue
        yield Measure(metrics.NODE_UP, node.online, (node.name,))
        if node.last_heartbeat:
            silent = (now() - node.last_heartbeat).total_seconds()
            yield Measure(metrics.NODE_SILENT, max(silent, 0.0), (node.name,))


def _measures_of_messages(fleet: Fleet, agents: Iterable[AgentInfo]) -> Iterator[Measure]:
    parties = [*(agent.agent_id for agent in agents), OPERATOR]
    yield Measure(metrics.MESSAGES_WAITING, sum(fleet.inboxes.depths(parties).values()))
    yield Measure(metrics.MESSAGES_DEAD, fleet.inboxes.count_dead(_LATEST_MESSAGES))


def _measures_of_time(client: redis.Redis) -> Iterator[Measure]:
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys.CHECKINS_DUE, 0, 0, withscores=True)
        pipe.get(keys.BEAT_LEADER)
        pipe.get(keys.BEAT_EPOCH)
        moment, first, leader, epoch = pipe.execute()
    overdue = max(in_ms(moment) - first[0][1], 0.0) / 1000 if first else 0.0
    yield Measure(metrics.CHECKIN_OVERDUE, overdue)
    yield Measure(metrics.BEAT_LEADS, bool(leader))
    yield Measure(metrics.BEAT_TURNS, int(epoch or 0))


def _measures_of_broker(fleet: Fleet) -> Iterator[Measure]:
    memory = memory_of(fleet.client)
    yield Measure(metrics.BROKER_MEMORY, memory.used)
    yield Measure(metrics.BROKER_MEMORY_LIMIT, memory.limit)
    yield Measure(metrics.DEAD_LETTERS, len(fleet.deliveries.dead_letter_ids()))
    yield Measure(metrics.DENIALS, sum(fleet.denials.counts().values()))
    yield Measure(metrics.TASKS_PENDING, len(fleet.deliveries.set_aside()))

"""On which node a spawned agent gets its place, and which limit refuses it one: a policy of plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from torch_tasks.model.node import KeptState, NodeInfo
from torch_tasks.model.spawn import Spawned, SpawnRequest, SpawnState

MEBIBYTE = 1 << 20
_DOWN = frozenset({KeptState.QUARANTINED, KeptState.RETIRED})


class CountedAgent(NamedTuple):
    """An agent that counts against the limits: where it is, and who asked for it."""

    role: str
    node: str
    parent: str | None = None
    pool: str | None = None


class PlacementLimits(NamedTuple):
    """How many agents there may be, and how much memory each is promised."""

    total: int
    role: int
    parent: int
    memory: int
    pool: int | None = None


class Refusal(NamedTuple):
    """The limit that refuses an agent, and its value."""

    limit: str
    whose: str = ""
    number: int = 0
    allowed: int = 0
    reasons: str = ""


class Place(NamedTuple):
    agent_id: str
    node: str


class FleetSnapshot(NamedTuple):
    """The fleet as it was read from the broker."""

    nodes: Sequence[NodeInfo]
    spawned: Sequence[Spawned]
    registered: Collection[str]
    """The ids of all agents ever registered: none is given out again."""
    online: Mapping[str, CountedAgent]

    def members(self) -> dict[str, CountedAgent]:
        """The agents that count: online, kept by a living node worker, or with a reserved place."""
        found = self._seen()
        for spawned in self.spawned:
            asked = spawned.request
            if spawned.state is SpawnState.RESERVED:
                found.setdefault(spawned.agent_id, CountedAgent(asked.role, spawned.node, asked.parent))
            if spawned.agent_id in found:
                found[spawned.agent_id] = found[spawned.agent_id]._replace(pool=asked.pool)
        return found

    def promised(self) -> Counter[str]:
        """How many agents each node has promised to start and that have not appeared yet."""
        seen = self._seen()
        waiting = (one for one in self.spawned if one.state is SpawnState.RESERVED and one.agent_id not in seen)
        return Counter(one.node for one in waiting)

    def _seen(self) -> dict[str, CountedAgent]:
        kept = {
            one.agent_id: CountedAgent(one.role, node.name, one.parent)
            for node in self.nodes
            for one in node.agents
            if node.online and one.state not in _DOWN
        }
        return {**kept, **self.online}

    def taken_ids(self) -> set[str]:
        kept = {one.agent_id for node in self.nodes for one in node.agents}
        spawned = {one.agent_id for one in self.spawned if one.state is not SpawnState.FAILED}
        return {*self.registered, *kept, *spawned}


def place(asked: SpawnRequest, fleet: FleetSnapshot, limits: PlacementLimits) -> Place | Refusal:
    """A place on the node with most room, or the limit that refuses the agent."""
    members, taken = fleet.members(), fleet.taken_ids()
    if asked.agent_id in taken:
        return Refusal("id", str(asked.agent_id))
    if refusal := _reached(asked, members.values(), limits):
        return refusal
    counts, promised = Counter(member.node for member in members.values()), fleet.promised()
    free = {node.name: node.capacity.memory_free - promised[node.name] * limits.memory for node in fleet.nodes}
    reasons = {node.name: _why_not(node, asked, counts[node.name], free[node.name], limits) for node in fleet.nodes}
    able = [node for node in fleet.nodes if not reasons[node.name]]
    if not able:
        named = [node.name for node in fleet.nodes if asked.node in (None, node.name)]
        words = "; ".join(sorted(f"{name} {reasons[name]}" for name in named))
        return Refusal("nowhere", asked.node or "", reasons=words)
    best = min(able, key=lambda node: (-room(node, counts[node.name], free[node.name]), counts[node.name], node.name))
    return Place(asked.agent_id or _free_id(asked.role, taken), best.name)


def room(node: NodeInfo, count: int, memory_free: int) -> int:
    """How much of a node's scarcest resource is left, in tenths, so that small changes of its load do not count."""
    has = node.capacity
    left = min(memory_free / has.memory_total, 1 - has.load / has.cpus, 1 - count / has.agents_limit)
    return int(10 * max(0.0, left))


def _reached(asked: SpawnRequest, members: Collection[CountedAgent], limits: PlacementLimits) -> Refusal | None:
    numbers = (
        ("pool", asked.pool, sum(one.pool == asked.pool for one in members), limits.pool if asked.pool else None),
        ("total", "", len(members), limits.total),
        ("role", asked.role, sum(one.role == asked.role for one in members), limits.role),
        (
            "parent",
            asked.parent,
            sum(one.parent == asked.parent for one in members),
            limits.parent if asked.parent else None,
        ),
    )
    for limit, whose, number, allowed in numbers:
        if allowed is not None and number >= allowed:
            return Refusal(limit, whose or "", number, allowed)
    return None


def _why_not(node: NodeInfo, asked: SpawnRequest, count: int, free: int, limits: PlacementLimits) -> str:
    if asked.node not in (None, node.name):
        return "was not asked for"
    if not node.online:
        return "offline"
    if node.drained:
        return "drained"
    for label in asked.labels:
        if label not in node.labels:
            return f"lacks the label {label}"
    if count >= node.capacity.agents_limit:
        return f"has {count} agents, TORCH_AGENTS_PER_NODE is {node.capacity.agents_limit} there"
    if free < limits.memory:
        needed = limits.memory // MEBIBYTE
        return f"has {free // MEBIBYTE} MB of memory free, TORCH_AGENT_MEMORY_BYTES asks for {needed} MB"
    return ""


def _free_id(role: str, taken: Collection[str]) -> str:
    numbers: Iterable[int] = range(1, len(taken) + 2)
    return next(f"{role}-{number}" for number in numbers if f"{role}-{number}" not in taken)

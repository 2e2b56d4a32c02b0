"""The nodes, and the agents that were spawned on them: every statement on either."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.clock import in_ms, time_ms
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.broker.scripts import Scripts
from torch_tasks.errors import NodeNotFound, NodeTaken, SpawnRefused, StaleWriter, Unreadable
from torch_tasks.model.agent import AgentStatus
from torch_tasks.model.near import did_you_mean
from torch_tasks.model.node import NodeInfo
from torch_tasks.model.reader import number, read_object, shortened
from torch_tasks.model.spawn import SPAWN_TRANSITIONS, Spawned, SpawnRequest, SpawnState
from torch_tasks.settings import Settings
from torch_tasks.store.placement import CountedAgent, FleetSnapshot, PlacementLimits, Refusal, place

SCRIPTS = Scripts(__file__, TRANSITIONS=SPAWN_TRANSITIONS)

_LOOKED_UP = {"incarnation", "status", "last_heartbeat", "drained"}
_REMEMBERED_MS = 86_400_000
"""How long the reason is kept why an agent could not be started."""


class NodeRegistry:
    """Which nodes there are, what they have, and when they last sent a heartbeat."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._offline_ms = int(settings.offline_seconds * 1000)
        self._refused = RefusedLetters(client)

    def nodes(self) -> list[NodeInfo]:
        """All nodes that were ever registered, by name."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.NODE_REGISTRY)
            pipe.zrange(keys.NODE_HEARTBEAT, 0, -1, withscores=True)
            pipe.smembers(keys.NODES_DRAINED)
            pipe.hgetall(keys.NODE_INCARNATION)
            pipe.time()
            entries, beats, drained, incarnations, now = pipe.execute()
        heard = dict(beats)
        found = [
            self._info(name, entry, incarnations.get(name), heard.get(name), in_ms(now), drained=name in drained)
            for name, entry in sorted(entries.items())
        ]
        return list(filter(None, found))

    def online(self) -> list[str]:
        since = time_ms(self._client) - self._offline_ms
        return [str(name) for name in self._client.zrangebyscore(keys.NODE_HEARTBEAT, f"({since}", "+inf")]

    def get_node(self, name: str) -> NodeInfo:
        for info in self.nodes():
            if info.name == name:
                return info
        known = map(str, self._client.hkeys(keys.NODE_REGISTRY))
        hint = did_you_mean(name, known, "'torch-tasks node list' shows those that are")
        raise NodeNotFound(f"no node {name!r} is registered; {hint}")

    def register(self, info: NodeInfo, *, holder_is_gone: bool = False) -> NodeInfo:
        """Enter a node under a new incarnation; :class:`NodeTaken` while another node worker has its name."""
        granted, entry, silent_ms = SCRIPTS["register"](
            self._client,
            **_KEYS,
            name=info.name,
            entry=_entry(info),
            host=info.host,
            pid=info.pid,
            offline_ms=self._offline_ms,
            holder_is_gone=holder_is_gone,
        )
        if granted:
            return info.model_copy(update={"incarnation": int(granted)})
        holder = read_object(entry)
        whose = f"pid {holder.get('pid')} on {holder.get('host')}"
        raise NodeTaken(
            f"another node worker is named {info.name}: {whose} (last heartbeat "
            f"{int(silent_ms) / 1000:.0f} s ago). Give this machine another name with TORCH_NODE, or stop that one "
            f"first; if it is dead, its name is free {self._offline_ms / 1000:g} s after its last heartbeat"
        )

    def entry(self, name: str) -> NodeInfo | None:
        """The registry's entry of this name, without ``status``, whichever node worker wrote it."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hget(keys.NODE_REGISTRY, name)
            pipe.hget(keys.NODE_INCARNATION, name)
            entry, incarnation = pipe.execute()
        return self._info(name, entry, incarnation, None, 0, drained=False) if entry else None

    def heartbeat(self, info: NodeInfo) -> bool:
        """Report that the node lives, and its state; returns whether it is drained.

        :class:`StaleWriter` if a later incarnation was registered.
        """
        fields = {"name": info.name, "entry": _entry(info), "incarnation": info.incarnation}
        drained = int(SCRIPTS["beat"](self._client, **_KEYS, drained=keys.NODES_DRAINED, **fields))
        if drained < 0:
            raise StaleWriter(
                f"another node worker is registered as {info.name} by now; this one may not write any more"
            )
        return bool(drained)

    def leave(self, info: NodeInfo) -> None:
        self.heartbeat(info.model_copy(update={"left": True}))

    def drain(self, name: str, *, drained: bool) -> None:
        """Keep agents from being started on this node, or allow it again."""
        self.get_node(name)
        (self._client.sadd if drained else self._client.srem)(keys.NODES_DRAINED, name)

    def _info(
        self, name: str, entry: str, incarnation: Any, beat: Any, now_ms: int, *, drained: bool
    ) -> NodeInfo | None:
        heard_ms = number(beat)

        def read(text: str) -> NodeInfo:
            fields = read_object(text)
            if fields["name"] != name:
                raise Unreadable(f"it is the entry of another node: {shortened(str(fields['name']))}")
            alive = bool(heard_ms) and now_ms - heard_ms < self._offline_ms and not fields["left"]
            return NodeInfo.model_validate(
                fields
                | {
                    "incarnation": number(incarnation),
                    "last_heartbeat": datetime.fromtimestamp(heard_ms / 1000, UTC) if heard_ms else None,
                    "status": AgentStatus.ACTIVE if alive else AgentStatus.OFFLINE,
                    "drained": drained,
                }
            )

        return self._refused.reading(keys.NODE_REGISTRY, name, entry, read)


def _entry(info: NodeInfo) -> str:
    return info.model_dump_json(exclude=_LOOKED_UP)


_KEYS = {"entries": keys.NODE_REGISTRY, "heartbeats": keys.NODE_HEARTBEAT, "incarnations": keys.NODE_INCARNATION}
_SPAWN_KEYS = {"spawned": keys.SPAWNED, "states": keys.SPAWN_STATES, "revision": keys.SPAWN_REVISION}


class Spawns:
    """The agents that were spawned and have not retired."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._nodes = NodeRegistry(client, settings)
        self._refused = RefusedLetters(client)

    def reserve(self, request: SpawnRequest, *, pool_limit: int | None = None) -> tuple[Spawned, bool]:
        """Reserve a place on the node with most room; returns it, and whether it is new, for a request has only one.

        :class:`SpawnRefused` names the limit that refuses it. ``pool_limit`` is that of the request's pool.
        """
        limits = PlacementLimits(
            total=self._settings.agents_limit,
            role=self._settings.role_limits.get(request.role, self._settings.agents_per_role),
            parent=self._settings.agents_per_parent,
            memory=self._settings.agent_memory_bytes,
            pool=pool_limit,
        )
        while True:
            now_ms, revision, fleet, forgotten = self._read()
            for one in fleet.spawned:
                if one.request.id == request.id:
                    return one, False
            chosen = place(request, fleet, limits)
            if isinstance(chosen, Refusal):
                raise SpawnRefused(f"no agent was started: {self._reason(chosen)}")
            spawned = Spawned(request=request, agent_id=chosen.agent_id, node=chosen.node, at=now_ms)
            if SCRIPTS["reserve"](
                self._client,
                **_SPAWN_KEYS,
                agents=keys.AGENT_REGISTRY,
                revision_read=revision,
                id=spawned.agent_id,
                request=request.id,
                entry=_spawn_entry(spawned),
                forgotten=forgotten,
            ):
                return spawned, True

    def snapshot(self) -> FleetSnapshot:
        """The fleet as the limits count it."""
        return self._read()[2]

    def _read(self) -> tuple[int, str, FleetSnapshot, list[str]]:
        """The broker's time, the revision of the list, the fleet, and the failures that are too old to be kept."""
        now_ms = time_ms(self._client)
        with self._client.pipeline() as pipe:
            pipe.get(keys.SPAWN_REVISION)
            pipe.hgetall(keys.SPAWNED)
            pipe.hgetall(keys.SPAWN_STATES)
            pipe.hgetall(keys.AGENT_REGISTRY)
            alive_since = now_ms - int(self._settings.offline_seconds * 1000)
            pipe.zrangebyscore(keys.AGENT_HEARTBEAT, alive_since, "+inf")
            revision, entries, states, agents, heard = pipe.execute()
        kept = self._refused.readable(keys.SPAWN_STATES, states, lambda _, text: _state_of(text))
        gone = (SpawnState.FAILED, SpawnState.LOST)
        old = [one for one, (state, _, at) in kept.items() if state in gone and at < now_ms - _REMEMBERED_MS]
        spawned = [one for name, one in self._all_of(entries, kept).items() if name not in old]
        living = {agent_id: agents[agent_id] for agent_id in heard if agent_id in agents}
        counted = self._refused.readable(keys.AGENT_REGISTRY, living, lambda _, text: _counted(text))
        members = {name: one for name, (one, left) in counted.items() if not left}
        return now_ms, str(revision or ""), FleetSnapshot(self._nodes.nodes(), spawned, agents.keys(), members), old

    def _reason(self, refusal: Refusal) -> str:
        limit, whose, number, allowed, reasons = refusal
        own_limit = "TORCH_ROLE_LIMITS says" if whose in self._settings.role_limits else "TORCH_AGENTS_PER_ROLE is"
        nowhere = f"no node has room for it: {reasons}" if reasons else f"there is no node {whose}".rstrip()
        return {
            "id": f"there is an agent {whose} already; leave the id out, and it gets one that is free",
            "nowhere": f"{nowhere}; 'torch-tasks node list' shows those there are",
            "total": f"the fleet has {number} agents, TORCH_AGENTS_LIMIT is {allowed}",
            "role": f"there are {number} agents of the role {whose}, {own_limit} {allowed}",
            "parent": f"{whose} has spawned {number} agents that live, TORCH_AGENTS_PER_PARENT is {allowed}",
            "pool": f"the pool {whose} has {number} agents, its limit is {allowed}",
        }[limit]

    def settle(self, spawned: Spawned, to: SpawnState, reason: str = "") -> bool:
        """Note the state of this very agent; false if it has a later one, or another agent has its id."""
        return self._settled(spawned, to.sources, to, reason) == to

    def end(self, spawned: Spawned, reason: str) -> None:
        """Free the place of this very agent, which has ended; if it never was ready, the ``reason`` is kept."""
        given_up = self._settled(spawned, [SpawnState.LOST], SpawnState.FAILED, spawned.reason or reason)
        if given_up != SpawnState.FAILED:
            failed = self._settled(spawned, [SpawnState.RESERVED], SpawnState.FAILED, reason)
            if failed != SpawnState.FAILED:
                self._settled(spawned, [SpawnState.READY], "", "")

    def _settled(self, spawned: Spawned, sources: Iterable[SpawnState], to: SpawnState | str, reason: str) -> str:
        which = {"id": spawned.agent_id, "request": spawned.request.id}
        return str(SCRIPTS["settle"](self._client, **_SPAWN_KEYS, **which, state=to, reason=reason, only_from=sources))

    def restore(self, spawned: Spawned) -> bool:
        """Put a spawned agent back; false if the broker knows one of its id."""
        state = {"request": spawned.request.id, "state": spawned.state, "reason": spawned.reason, "at": spawned.at}
        entry = {"entry": _spawn_entry(spawned), "state": json.dumps(state)}
        return bool(SCRIPTS["restore"](self._client, **_SPAWN_KEYS, id=spawned.agent_id, **entry))

    def get_many(self, agent_ids: Collection[str]) -> list[Spawned]:
        if not agent_ids:
            return []
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(keys.SPAWNED, list(agent_ids))
            pipe.hmget(keys.SPAWN_STATES, list(agent_ids))
            entries, states = pipe.execute()
        names = list(agent_ids)
        known = {name: state for name, state in zip(names, states, strict=True) if state}
        kept = self._refused.readable(keys.SPAWN_STATES, known, lambda _, text: _state_of(text))
        return list(
            self._all_of({name: entry for name, entry in zip(names, entries, strict=True) if entry}, kept).values()
        )

    def all(self) -> list[Spawned]:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.SPAWNED)
            pipe.hgetall(keys.SPAWN_STATES)
            entries, states = pipe.execute()
        kept = self._refused.readable(keys.SPAWN_STATES, states, lambda _, text: _state_of(text))
        return [one for _, one in sorted(self._all_of(entries, kept).items())]

    def _all_of(self, entries: Mapping[str, str], states: Mapping[str, _KeptState]) -> dict[str, Spawned]:
        """The spawned agents among these entries that have one of these states."""
        known = {name: entry for name, entry in entries.items() if name in states}
        return self._refused.readable(keys.SPAWNED, known, lambda name, text: _spawned(text, states[name]))


def _spawn_entry(spawned: Spawned) -> str:
    return spawned.model_dump_json(exclude={"state", "reason"}, exclude_none=True)


class _KeptState(NamedTuple):
    state: SpawnState
    reason: str
    at: int


def _state_of(text: str) -> _KeptState:
    kept = read_object(text)
    return _KeptState(SpawnState(kept["state"]), str(kept["reason"]), int(kept["at"]))


def _spawned(entry: str, kept: _KeptState) -> Spawned:
    return Spawned.model_validate(read_object(entry) | {"state": kept.state, "reason": kept.reason})


def _counted(entry: str) -> tuple[CountedAgent, bool]:
    """A registered agent as the limits count it, and whether it has left."""
    fields = read_object(entry)
    parent = fields["parent"]
    return CountedAgent(str(fields["role"]), str(fields["node"]), parent and str(parent)), bool(fields["left"])

"""The machines, and the agents that were spawned on them: every statement that reads or writes either."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.errors import NodeNotFound, NodeTaken, SpawnRefused, StaleWriter
from torch_tasks.model.agent import AgentStatus
from torch_tasks.model.node import NodeInfo
from torch_tasks.model.spawn import Spawned, SpawnRequest, SpawnState
from torch_tasks.settings import Settings
from torch_tasks.store import node_scripts as scripts

_LOOKED_UP = {"status", "last_heartbeat", "drained"}


class NodeRegistry:
    """Which machines there are, what they have, and when they last said so."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._offline_ms = int(settings.offline_seconds * 1000)
        self._register = client.register_script(scripts.REGISTER)
        self._beat = client.register_script(scripts.BEAT)

    # ── who looks ────────────────────────────────────────────────────────────────────────────────────────────────

    def nodes(self) -> list[NodeInfo]:
        """All nodes that were ever heard of, by name, with who is online now."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.NODE_REGISTRY)
            pipe.zrange(keys.NODE_HEARTBEAT, 0, -1, withscores=True)
            pipe.smembers(keys.NODES_DRAINED)
            pipe.time()
            entries, beats, drained, (seconds, micros) = pipe.execute()
        heard, now_ms = dict(beats), seconds * 1000 + micros // 1000
        return [
            self._info(entry, heard.get(name), now_ms, drained=name in drained)
            for name, entry in sorted(entries.items())
        ]

    def online(self) -> list[str]:
        """The names of the nodes of which the fleet hears."""
        seconds, micros = self._client.time()
        since = seconds * 1000 + micros // 1000 - self._offline_ms
        return [str(name) for name in self._client.zrangebyscore(keys.NODE_HEARTBEAT, f"({since}", "+inf")]

    def get_node(self, name: str) -> NodeInfo:
        """One node, or :class:`NodeNotFound`."""
        for info in self.nodes():
            if info.name == name:
                return info
        raise NodeNotFound(f"no node {name!r} is registered; 'torch-tasks node list' shows those that are")

    # ── who is there ─────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, info: NodeInfo, *, holder_is_gone: bool = False) -> NodeInfo:
        """Enter a node under a new incarnation, or refuse with :class:`NodeTaken` while another one has its name."""
        granted, entry, silent_ms = self._register(
            keys=[keys.NODE_REGISTRY, keys.NODE_HEARTBEAT, keys.NODE_INCARNATION],
            args=[
                info.name,
                _entry(info.model_copy(update={"incarnation": 0})),
                self._offline_ms,
                info.host,
                info.pid,
                int(holder_is_gone),
            ],
        )
        if granted:
            return info.model_copy(update={"incarnation": int(granted)})
        holder = json.loads(entry)
        raise NodeTaken(
            f"a node worker of the name {info.name} is there already, pid {holder['pid']} on {holder['host']} (heard "
            f"of {int(silent_ms) / 1000:.0f} s ago). Give this machine another name with TORCH_NODE, or stop that one "
            f"first; if it is dead, its name is free {self._offline_ms / 1000:g} s after its last heartbeat"
        )

    def entry(self, name: str) -> NodeInfo | None:
        """What stands in the registry under this name, whoever wrote it; ``status`` is not looked up."""
        entry = self._client.hget(keys.NODE_REGISTRY, name)
        return self._info(str(entry), None, 0, drained=False) if entry else None

    def heartbeat(self, info: NodeInfo) -> bool:
        """Say that the node lives, and how; returns whether it is drained. :class:`StaleWriter` if it was succeeded."""
        drained = int(
            self._beat(
                keys=[keys.NODE_REGISTRY, keys.NODE_HEARTBEAT, keys.NODE_INCARNATION, keys.NODES_DRAINED],
                args=[info.name, info.incarnation, _entry(info)],
            )
        )
        if drained < 0:
            raise StaleWriter(f"another node worker has the name {info.name} by now, this one is its node's no more")
        return bool(drained)

    def leave(self, info: NodeInfo) -> None:
        """Mark the node offline at once."""
        self.heartbeat(info.model_copy(update={"left": True}))

    def drain(self, name: str, *, drained: bool) -> None:
        """Say whether no agent is started on this node any more."""
        self.get_node(name)
        (self._client.sadd if drained else self._client.srem)(keys.NODES_DRAINED, name)

    def _info(self, entry: str, beat: Any, now_ms: int, *, drained: bool) -> NodeInfo:
        heard_ms, fields = int(beat or 0), json.loads(entry)
        alive = bool(heard_ms) and now_ms - heard_ms < self._offline_ms and not fields["left"]
        return NodeInfo.model_validate(
            fields
            | {
                "last_heartbeat": datetime.fromtimestamp(heard_ms / 1000, UTC) if heard_ms else None,
                "status": AgentStatus.ACTIVE if alive else AgentStatus.OFFLINE,
                "drained": drained,
            }
        )


def _entry(info: NodeInfo) -> str:
    return info.model_dump_json(exclude=_LOOKED_UP)


_REMEMBERED_MS = 86_400_000
"""For so long it is known why an agent could not be started."""
_KEYS = [keys.SPAWNED, keys.SPAWN_STATES]


class Spawns:
    """Who was spawned and has not retired."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._reserve = client.register_script(scripts.RESERVE)
        self._settle = client.register_script(scripts.SETTLE)
        self._restore = client.register_script(scripts.RESTORE)

    def reserve(self, request: SpawnRequest, *, pool_limit: int | None = None) -> tuple[Spawned, bool]:
        """A place for the agent on the node with most room, and whether it is new: the same request has one place.

        :class:`SpawnRefused` names the limit that does not let it be. ``pool_limit`` is how many of the request's pool
        there may be.
        """
        chosen = self._settings
        limits: dict[str, Any] = {
            "total": chosen.agents_limit,
            "role": chosen.role_limits.get(request.role, chosen.agents_per_role),
            "parent": chosen.agents_per_parent,
            "memory": chosen.agent_memory_bytes,
        }
        if pool_limit is not None:
            limits["pool"] = pool_limit
        outcome, *rest = self._reserve(
            keys=[
                *_KEYS,
                keys.AGENT_REGISTRY,
                keys.AGENT_HEARTBEAT,
                keys.NODE_REGISTRY,
                keys.NODE_HEARTBEAT,
                keys.NODES_DRAINED,
            ],
            args=[
                request.model_dump_json(exclude_none=True),
                int(chosen.offline_seconds * 1000),
                json.dumps(limits),
                _REMEMBERED_MS,
            ],
        )
        if outcome == "refused":
            raise SpawnRefused(f"no agent was started: {self._reason(rest)}")
        [spawned] = self.get_many([rest[0]])
        return spawned, outcome == "new"

    def _reason(self, refusal: Sequence[Any]) -> str:
        """Which limit it was, and its value."""
        limit, whose, number, allowed = refusal
        own_limit = "TORCH_ROLE_LIMITS says" if whose in self._settings.role_limits else "TORCH_AGENTS_PER_ROLE is"
        nowhere = f"no node has room for it: {number}" if number else f"there is no node {whose}".rstrip()
        return {
            "id": f"there is an agent {whose} already; leave the id out, and it gets one that is free",
            "nowhere": f"{nowhere}; 'torch-tasks node list' shows those there are",
            "total": f"the fleet has {number} agents, TORCH_AGENTS_LIMIT is {allowed}",
            "role": f"there are {number} agents of the role {whose}, {own_limit} {allowed}",
            "parent": f"{whose} has spawned {number} agents that live, TORCH_AGENTS_PER_PARENT is {allowed}",
            "pool": f"the pool {whose} has {number} agents, its limit is {allowed}",
        }[str(limit)]

    def settle(self, spawned: Spawned, to: SpawnState, reason: str = "") -> bool:
        """Say how far this very agent is; false if it is further already, or another one has its id."""
        return self._settled(spawned, to.sources, to, reason) == to

    def end(self, spawned: Spawned, reason: str) -> None:
        """This very agent has ended: its place is free. If it never was ready, that is the reason."""
        given_up = self._settled(spawned, [SpawnState.LOST], SpawnState.FAILED, spawned.reason or reason)
        if given_up != SpawnState.FAILED:
            failed = self._settled(spawned, [SpawnState.RESERVED], SpawnState.FAILED, reason)
            if failed != SpawnState.FAILED:
                self._settled(spawned, [SpawnState.READY], "", "")

    def _settled(self, spawned: Spawned, sources: Iterable[SpawnState], to: SpawnState | str, reason: str) -> str:
        args = [spawned.agent_id, spawned.request.id, f" {' '.join(sources)} ", to, reason]
        return str(self._settle(keys=_KEYS, args=args))

    def restore(self, spawned: Spawned) -> bool:
        """Put back what a broker has forgotten; false if it knows better."""
        entry = spawned.model_dump_json(exclude={"state", "reason"}, exclude_none=True)
        state = json.dumps({"state": spawned.state, "reason": spawned.reason, "at": spawned.at})
        return bool(self._restore(keys=_KEYS, args=[spawned.agent_id, entry, state]))

    def get_many(self, agent_ids: Collection[str]) -> list[Spawned]:
        """Those of these agents that are known."""
        if not agent_ids:
            return []
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(keys.SPAWNED, list(agent_ids))
            pipe.hmget(keys.SPAWN_STATES, list(agent_ids))
            entries, states = pipe.execute()
        return [_spawned(entry, state) for entry, state in zip(entries, states, strict=True) if entry and state]

    def all(self) -> list[Spawned]:
        """Every spawned agent, by id."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.SPAWNED)
            pipe.hgetall(keys.SPAWN_STATES)
            entries, states = pipe.execute()
        return [_spawned(entry, states[agent_id]) for agent_id, entry in sorted(entries.items()) if agent_id in states]


def _spawned(entry: str, state: str) -> Spawned:
    told = json.loads(state)
    return Spawned.model_validate(json.loads(entry) | {"state": told["state"], "reason": told["reason"]})

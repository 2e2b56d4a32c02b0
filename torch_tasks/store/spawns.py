"""The spawned agents: every statement that reads or writes who was asked for, and where it has its place."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.errors import SpawnRefused
from torch_tasks.model.spawn import Spawned, SpawnRequest, SpawnState
from torch_tasks.settings import Settings
from torch_tasks.store import node_scripts as scripts

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
        [spawned] = self.some([rest[0]])
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

    def settle(
        self, spawned: Spawned, to: SpawnState, reason: str = "", *, only_from: Collection[SpawnState] = ()
    ) -> bool:
        """Say how far this very agent is; false if it is further already, or another one has its id."""
        sources = only_from or (SpawnState.RESERVED,)
        return self._settled(spawned, sources, to, reason) == to

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

    def some(self, agent_ids: Collection[str]) -> list[Spawned]:
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

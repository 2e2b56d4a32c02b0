"""The node registry: every statement that reads or writes which machines there are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.errors import NodeNotFound, NodeTaken, StaleWriter
from torch_tasks.model.agent import AgentStatus
from torch_tasks.model.node import NodeInfo
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

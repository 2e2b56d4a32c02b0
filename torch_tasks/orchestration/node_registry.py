"""The node registry: which machines have a node worker that lives."""

from __future__ import annotations

from collections.abc import Iterable

import redis

from torch_tasks import keys
from torch_tasks.broker import NOW
from torch_tasks.models import AgentInfo
from torch_tasks.settings import Settings

_BEAT = NOW + "redis.call('ZADD', KEYS[1], now, ARGV[1])"

_WATCHED = NOW + "return now - tonumber(redis.call('HGET', KEYS[1], 'watch') or now)"


class NodeRegistry:
    """When each node's worker last said that it lives."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._beat = client.register_script(_BEAT)
        self._watched = client.register_script(_WATCHED)

    def heartbeat(self, node: str) -> None:
        """Say that this node's worker lives."""
        self._beat(keys=[keys.NODE_HEARTBEAT], args=[node])

    def dead(self, agents: Iterable[AgentInfo]) -> list[AgentInfo]:
        """Those of the agents that nobody will bring back soon: they are silent, and so are their nodes."""
        if self._watched(keys=[keys.BROKER_STATE]) < self._settings.takeover_seconds * 1000:
            return []
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zrange(keys.NODE_HEARTBEAT, 0, -1, withscores=True)
            pipe.time()
            beats, (seconds, micros) = pipe.execute()
        now = int(seconds) + int(micros) / 1_000_000
        heard = {str(node): float(score) / 1000 for node, score in beats}
        return [info for info in agents if self._is_dead(info, heard.get(info.node, 0.0), now)]

    def _is_dead(self, info: AgentInfo, node_heard: float, now: float) -> bool:
        grace = self._settings.detached_seconds if info.left else self._settings.takeover_seconds
        heard = info.last_heartbeat.timestamp() if info.last_heartbeat else 0.0
        return now - heard >= grace and now - node_heard >= self._settings.takeover_seconds

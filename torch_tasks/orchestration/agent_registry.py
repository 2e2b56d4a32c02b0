"""The agent registry: every statement that reads or writes who is there."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.broker import NOW
from torch_tasks.errors import AgentTaken, StaleWriter
from torch_tasks.models import AgentInfo, AgentStatus
from torch_tasks.settings import Settings

# KEYS: registry, heartbeats, incarnations. ARGV: id, entry, offline after (ms), host, pid, smallest incarnation,
# '1' if the caller knows that the process the entry names is gone.
_REGISTER = (
    NOW
    + """
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry and ARGV[7] ~= '1' then
  local holder = cjson.decode(entry)
  local beat = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
  local same = holder.host == ARGV[4] and tostring(holder.pid) == ARGV[5]
  if not same and not holder.left and now - beat < tonumber(ARGV[3]) then return {0, entry, now - beat} end
end
local incarnation = tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0') + 1
if incarnation < tonumber(ARGV[6]) then incarnation = tonumber(ARGV[6]) end
redis.call('HSET', KEYS[3], ARGV[1], incarnation)
local mine = string.gsub(ARGV[2], '"incarnation":0', string.format('"incarnation":%d', incarnation), 1)
redis.call('HSET', KEYS[1], ARGV[1], mine)
redis.call('ZADD', KEYS[2], now, ARGV[1])
return {incarnation, '', 0}
"""
)

# KEYS: registry, heartbeats, incarnations, demanded queues. ARGV: id, incarnation, entry.
_BEAT = (
    NOW
    + """
local latest = tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0')
if latest > tonumber(ARGV[2]) then return -1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
return redis.call('SCARD', KEYS[4])
"""
)

_KEEP = NOW + "for i = 1, #ARGV do redis.call('ZADD', KEYS[1], now, ARGV[i]) end"

_CLOCK = NOW + "return {now, now - tonumber(redis.call('HGET', KEYS[1], 'watch') or now)}"


class AgentRegistry:
    """Who is there, what they can do, and when they last said so."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._offline_ms = int(settings.offline_seconds * 1000)
        self._register = client.register_script(_REGISTER)
        self._beat = client.register_script(_BEAT)
        self._keep = client.register_script(_KEEP)
        self._clock = client.register_script(_CLOCK)

    def register(self, info: AgentInfo, *, at_least: int = 1, holder_is_gone: bool = False) -> AgentInfo:
        """Enter an agent under a new incarnation, or refuse with :class:`AgentTaken` while another worker hosts it."""
        granted, entry, silent_ms = self._register(
            keys=[keys.AGENT_REGISTRY, keys.AGENT_HEARTBEAT, keys.AGENT_INCARNATION],
            args=[
                info.agent_id,
                _entry(info.model_copy(update={"incarnation": 0})),
                self._offline_ms,
                info.host,
                info.pid,
                at_least,
                int(holder_is_gone),
            ],
        )
        if granted:
            return info.model_copy(update={"incarnation": int(granted)})
        holder = json.loads(entry)
        raise AgentTaken(
            f"agent {info.agent_id} is hosted already, by pid {holder['pid']} on {holder['host']} (heard of "
            f"{int(silent_ms) / 1000:.0f} s ago). Choose another --id, or stop that worker first; if it is dead, "
            f"its place is free {self._offline_ms / 1000:g} s after its last heartbeat"
        )

    def heartbeat(self, info: AgentInfo) -> int:
        """Say that the agent lives, and how; returns how many queues are demanded."""
        demanded = self._beat(
            keys=[keys.AGENT_REGISTRY, keys.AGENT_HEARTBEAT, keys.AGENT_INCARNATION, keys.DEMANDED_QUEUES],
            args=[info.agent_id, info.incarnation, _entry(info)],
        )
        if int(demanded) < 0:
            raise StaleWriter(
                f"agent {info.agent_id} has a later incarnation than {info.incarnation}: "
                "this worker is not its host any more"
            )
        return int(demanded)

    def leave(self, info: AgentInfo) -> None:
        """Mark the agent offline at once; its pane may work on, so its tasks stay its own for a while."""
        self.heartbeat(info.model_copy(update={"left": True}))

    def keep(self, agent_ids: Collection[str]) -> None:
        """Promise, for now, that a worker of each of these agents that dies is started again."""
        if agent_ids:
            self._keep(keys=[keys.AGENT_KEPT], args=list(agent_ids))

    def dead(self) -> list[AgentInfo]:
        """The agents that nobody will bring back soon: silent, and kept by no node worker that lives.

        Nobody counts as dead while the broker itself has not been there long enough to know.
        """
        now_ms, watched_ms = self._clock(keys=[keys.BROKER_STATE])
        if watched_ms < self._settings.takeover_seconds * 1000:
            return []
        promises: Any = self._client.zrange(keys.AGENT_KEPT, 0, -1, withscores=True)
        kept = {str(agent_id): float(score) for agent_id, score in promises}
        return [info for info in self.agents() if self._is_dead(info, kept.get(info.agent_id, 0.0), now_ms)]

    def _is_dead(self, info: AgentInfo, kept_ms: float, now_ms: int) -> bool:
        silence = self._settings.takeover_seconds * 1000
        grace = self._settings.detached_seconds * 1000 if info.left else silence
        heard_ms = info.last_heartbeat.timestamp() * 1000 if info.last_heartbeat else 0.0
        return now_ms - heard_ms >= grace and now_ms - kept_ms >= silence

    def entry(self, agent_id: str) -> AgentInfo | None:
        """What stands in the registry under this id, whoever wrote it; ``status`` is not looked up."""
        entry = self._client.hget(keys.AGENT_REGISTRY, agent_id)
        return _info(json.loads(entry), 0, 1) if entry else None

    def agents(self) -> list[AgentInfo]:
        """All agents ever registered, by id, with who is online now."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.AGENT_REGISTRY)
            pipe.zrange(keys.AGENT_HEARTBEAT, 0, -1, withscores=True)
            pipe.time()
            entries, beats, (seconds, micros) = pipe.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        heard = {agent_id: int(score) for agent_id, score in beats}
        return [
            _info(json.loads(entry), heard.get(agent_id, 0), now_ms - self._offline_ms)
            for agent_id, entry in sorted(entries.items())
        ]


def _entry(info: AgentInfo) -> str:
    return info.model_dump_json(exclude={"status", "last_heartbeat"})


def _info(entry: dict[str, Any], heard_ms: int, alive_since_ms: int) -> AgentInfo:
    heard = datetime.fromtimestamp(heard_ms / 1000, UTC) if heard_ms else None
    alive = heard_ms >= alive_since_ms and not entry.get("left")
    status = AgentStatus.ACTIVE if alive else AgentStatus.OFFLINE
    return AgentInfo.model_validate(entry | {"last_heartbeat": heard, "status": status})

"""What changes among the agents, told as it happens and without asking after each of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import redis

from torch_tasks import keys
from torch_tasks.model.agent import AgentInfo

_LOOK_MS = 1000
"""How often those who fell silent are looked for."""
_AT_ONCE = 1000

What = Literal["came", "left", "state", "task", "abilities"]


class AgentChange(NamedTuple):
    """One thing that is different now."""

    agent_id: str
    what: What
    """``came`` is told for each new life of an agent, and when it is heard of again."""
    info: AgentInfo
    before: AgentInfo | None


class _Registry(Protocol):
    def agents(self) -> list[AgentInfo]: ...
    def some(self, agent_ids: Collection[str]) -> list[AgentInfo]: ...


class Watch:
    """One look that goes on.

    The broker keeps a stream of who changed, so a notice cannot be missed for want of somebody who listens at that
    moment; a notice says only whom to look at, and what is told is how that agent differs from when it was last seen.
    """

    def __init__(
        self, registry: _Registry, client: redis.Redis, offline_ms: int, deadline: float | None = None
    ) -> None:
        self._registry = registry
        self._client = client
        self._offline_ms = offline_ms
        self._deadline = deadline
        self._place = self._newest()  # before the agents are read: what changes meanwhile is told, not missed
        self._known = {info.agent_id: info for info in registry.agents()}
        self._heard_since = self._now() - offline_ms

    def __iter__(self) -> Iterator[AgentChange]:
        while (left := self._left_ms()) > 0:
            for info in self._registry.some(self._noticed(left) | self._silent()):
                before = self._known.get(info.agent_id)
                self._known[info.agent_id] = info
                yield from (AgentChange(info.agent_id, what, info, before) for what in _differences(before, info))

    def _left_ms(self) -> int:
        left = _LOOK_MS if self._deadline is None else int((self._deadline - time.monotonic()) * 1000)
        return min(left, _LOOK_MS)

    def _noticed(self, wait_ms: int) -> set[str]:
        """Those of whom a notice came, waiting for one if need be."""
        answer: Any = self._client.xread({keys.AGENT_CHANGES: self._place}, count=_AT_ONCE, block=wait_ms)
        notices = answer[0][1] if answer else []
        if len(notices) == _AT_ONCE:  # so far behind that the stream may have lost some: look at everybody
            self._place = self._newest()
            return {info.agent_id for info in self._registry.agents()}
        if notices:
            self._place = notices[-1][0]
        return {notice["agent"] for _, notice in notices}

    def _silent(self) -> set[str]:
        """Those whose silence has lasted too long since the last look."""
        since, self._heard_since = self._heard_since, self._now() - self._offline_ms
        silent = self._client.zrangebyscore(keys.AGENT_HEARTBEAT, since, self._heard_since)
        return {str(agent_id) for agent_id in silent}

    def _newest(self) -> str:
        newest: Any = self._client.xrevrange(keys.AGENT_CHANGES, count=1)
        return str(newest[0][0]) if newest else "0-0"

    def _now(self) -> int:
        seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000


def _differences(before: AgentInfo | None, info: AgentInfo) -> Iterator[What]:
    if before is None or not before.online:
        if info.online:
            yield "came"
        return
    if not info.online:
        yield "left"
        return
    if info.incarnation != before.incarnation:
        yield "came"
    if (info.role, info.abilities) != (before.role, before.abilities):
        yield "abilities"
    if info.state is not before.state:
        yield "state"
    if info.current_task != before.current_task:
        yield "task"

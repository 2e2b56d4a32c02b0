"""How much of its memory the broker uses, and when it takes no new tasks."""

from __future__ import annotations

import logging
import time

import redis
from pydantic import BaseModel, ConfigDict

from torch_tasks.errors import BrokerFull

log = logging.getLogger(__name__)

NEAR = 0.8
FULL = 0.9
"""From this share on new tasks are refused; the rest is for what was accepted, as leases, records and results."""
LOOK_SECONDS = 1.0
_KEEPS_ALL = "noeviction"
_MIB = 1 << 20


class Memory(BaseModel):
    """What the broker uses at one moment."""

    model_config = ConfigDict(frozen=True)

    used: int
    limit: int
    """0: it has none."""
    policy: str = _KEEPS_ALL
    """What it does when the limit is reached."""

    @property
    def share(self) -> float:
        return self.used / self.limit if self.limit else 0.0

    @property
    def warning(self) -> str:
        """What a person should know; empty if there is nothing."""
        if self.limit and self.policy != _KEEPS_ALL:
            return (
                f"the broker drops what it was given when its memory is used up (maxmemory-policy {self.policy}): "
                f"set it to {_KEEPS_ALL}"
            )
        if self.share >= FULL:
            return f"the broker takes no new tasks: its memory is used up, {self}. {REMEDY}"
        if self.share >= NEAR:
            return f"the broker's memory is nearly used up, {self}; at {FULL:.0%} it takes no new tasks. {REMEDY}"
        return ""

    def __str__(self) -> str:
        limit = f" of {self.limit // _MIB:,} MiB ({self.share:.0%})" if self.limit else ", without a limit"
        return f"{self.used // _MIB:,} MiB{limit}"


REMEDY = (
    "What was accepted stays and goes on. Wait until tasks have ended, or give the broker more memory "
    "(TORCH_BROKER_MEMORY for this machine's own, then 'torch-tasks down' and 'up')"
)


def memory_of(client: redis.Redis) -> Memory:
    answer = client.info("memory")
    policy = str(answer.get("maxmemory_policy", _KEEPS_ALL))
    return Memory(used=answer["used_memory"], limit=answer.get("maxmemory", 0), policy=policy)


class Room:
    """Whether the broker has room for new tasks, as this process saw it a second ago at most."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._seen: Memory | None = None
        self._looked = 0.0

    @property
    def is_left(self) -> bool:
        return self._look().share < FULL

    def require(self) -> None:
        """Raise :class:`BrokerFull` if none is left."""
        if not self.is_left:
            raise BrokerFull(self._look().warning)

    def _look(self) -> Memory:
        if self._seen is None or time.monotonic() - self._looked >= LOOK_SECONDS:
            self._seen, self._looked = memory_of(self._client), time.monotonic()
        return self._seen


class MemoryLog:
    """Logs when the broker's memory begins to be short, and when it is not any more."""

    def __init__(self) -> None:
        self._short = False

    def note(self, memory: Memory) -> None:
        """Log a change."""
        if bool(memory.warning) == self._short:
            return
        self._short = not self._short
        if self._short:
            log.warning("%s", memory.warning)
        else:
            log.info("the broker's memory is not short any more: %s", memory)

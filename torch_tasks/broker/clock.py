"""The time by the broker's clock, the one that all machines share. In Lua it is ``clock.lua``."""

from __future__ import annotations

import redis


def in_ms(answer: tuple[int, int]) -> int:
    """The broker's answer to ``TIME``, in milliseconds."""
    seconds, micros = answer
    return seconds * 1000 + micros // 1000


def time_ms(client: redis.Redis) -> int:
    """The time now, in milliseconds."""
    return in_ms(client.time())

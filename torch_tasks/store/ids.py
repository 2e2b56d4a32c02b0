"""The ids that the broker knows: those that begin alike, and those near to one that it does not know."""

from __future__ import annotations

import re

import redis

from torch_tasks.model.near import did_you_mean

_MADE_BY_TORCH = re.compile(r"[0-9a-f]{12,32}")
_AMONG = 500
"""A mistyped id is compared with this many of the latest."""


def ids_beginning(client: redis.Redis, index: str, beginning: str, limit: int = 0) -> list[str]:
    """The latest ids in a sorted set with this beginning, all without a limit; only the id itself if it is complete."""
    if beginning and client.zscore(index, beginning) is not None:
        return [beginning]
    known = map(str, client.zrevrange(index, 0, limit - 1))
    return [one for one in known if one.startswith(beginning)]


def near_ids(client: redis.Redis, index: str, wrong: str) -> str:
    """``; did you mean report-1?``: which ids that people gave are near; empty if none is."""
    known = map(str, client.zrevrange(index, 0, _AMONG - 1))
    hint = did_you_mean(wrong, (one for one in known if not _MADE_BY_TORCH.fullmatch(one)))
    return f"; {hint}" if hint else ""

"""How far each node's audit is, as the node signed it: on the broker, for all others to keep."""

from __future__ import annotations

from typing import Any

import redis

from torch_tasks import keys


class AuditHeads:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def all(self) -> dict[str, str]:
        """The signed heads, by the names of their nodes."""
        found: Any = self._client.hgetall(keys.AUDIT_HEADS)
        return {str(node): str(signed) for node, signed in found.items()}

    def put(self, heads: dict[str, str]) -> None:
        if heads:
            self._client.hset(keys.AUDIT_HEADS, mapping=dict(heads.items()))

"""How the last standing backup of each machine ended."""

from __future__ import annotations

from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.model.reader import read_model
from torch_tasks.model.standing_backup import LastBackup


class LastBackups:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._refused = RefusedLetters(client)

    def note(self, last: LastBackup) -> None:
        self._client.hset(keys.STANDING_BACKUPS, last.node, last.model_dump_json())

    def all(self) -> list[LastBackup]:
        """Of each machine that ever took one."""
        found: Any = self._client.hgetall(keys.STANDING_BACKUPS)
        read = self._refused.readable(keys.STANDING_BACKUPS, found, lambda _, text: read_model(LastBackup, text))
        return list(read.values())

"""Has this machine's node worker take the standing backups."""

from __future__ import annotations

from pathlib import Path

from torch_tasks.backup.standing import StandingBackups
from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.fleet import Fleet
from torch_tasks.system.loops import Loop

_DELAY_SECONDS = 5.0
"""So that the node worker's own start is not made longer."""


class BackupKeeper:
    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.loop = Loop("back up", self._play_round, delay=_DELAY_SECONDS, retry_seconds=5, longest_retry_seconds=60)
        self._backups = StandingBackups(fleet, folder)
        self._node = fleet.settings.node

    def _play_round(self) -> float:
        with acting_as(Caller(other=CallerKind.NODE, own_name=self._node)):
            return self._backups.take_if_due()

"""The backups that a machine takes by itself: when the next is due, which are kept, and how the last one ended."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from torch_tasks.backup.age import Recipients
from torch_tasks.backup.manifest import Manifest
from torch_tasks.backup.sealing import Passphrase, Seal
from torch_tasks.backup.taking import take
from torch_tasks.errors import TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.standing_backup import LastBackup
from torch_tasks.system.files import make_folder

_NAME, _ENDING = "fleet-", ".torch-backup"
_AFTER_FAILURE_SECONDS = 60.0


class StandingBackups:
    """Those in the folder of the settings."""

    def __init__(self, of: Fleet, folder: Path) -> None:
        self._fleet = of
        self._folder = folder
        self._tried = 0.0

    def take_if_due(self) -> float:
        """Take one if it is due; returns the seconds until the next is. One that fails is tried again in a minute."""
        if (left := self._left()) > 0:
            return left
        self._tried = time.time()
        try:
            manifest = self._take()
        except TorchError as error:
            self._note(str(error))
            raise
        self._note("; ".join(f"{one.node}: {one.why_missing}" for one in manifest.missing))
        self._prune()
        return self._left()

    def _left(self) -> float:
        every = self._fleet.settings.backup_seconds
        newest = max((one.stat().st_mtime for one in self._kept()), default=0.0)
        due = max(newest + every, self._tried + min(_AFTER_FAILURE_SECONDS, every))
        return min(due - time.time(), every)

    def _take(self) -> Manifest:
        make_folder(self._folder)
        name = f"{_NAME}{datetime.now(UTC):%Y%m%dT%H%M%SZ}{_ENDING}"
        return take(self._folder / name, self._fleet, self._seal())

    def _seal(self) -> Seal | None:
        settings = self._fleet.settings
        if settings.backup_recipients:
            return Recipients(settings.backup_recipients)
        file = settings.backup_passphrase_file
        return Passphrase.in_file(file) if file else None

    def _kept(self) -> list[Path]:
        """Those that are there, the latest last."""
        return sorted(self._folder.glob(f"{_NAME}*{_ENDING}"))

    def _prune(self) -> None:
        for old in self._kept()[: -self._fleet.settings.backup_keep]:
            with suppress(FileNotFoundError):
                old.unlink()

    def _note(self, trouble: str) -> None:
        """Have the fleet know how it ended: it needs a person if it failed."""
        with suppress(TorchError):
            self._fleet.standing_backups.note(
                LastBackup(node=self._fleet.settings.node, at=datetime.now(UTC), trouble=trouble)
            )

"""The requests for other fleets that this machine has accepted: a file each, until the other fleet has it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torch_tasks.model.address import Crossing
from torch_tasks.system.files import flush_folder, make_folder, usable, write_private


class Crossings:
    """What waits on this machine for other fleets, and what they refused, in the order in which it was accepted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, crossing: Crossing) -> None:
        """Have it on the disk, also after a power failure; the same id for the same fleet waits once."""
        if self._files(crossing.fleet, crossing.id):
            return
        folder = self._waiting(crossing.fleet)
        for parent in (self._folder, self._folder / crossing.fleet, folder):
            make_folder(parent)
        write_private(folder / f"{time.time_ns():020d}-{crossing.id}.json", crossing.model_dump_json())
        flush_folder(folder)

    def waiting(self, fleet: str) -> Iterator[tuple[Path, Crossing]]:
        for file in self._files(fleet):
            with suppress(FileNotFoundError):
                yield file, Crossing.model_validate_json(file.read_bytes())

    def waits(self, task_or_message: str) -> bool:
        """Whether this still waits here, for whichever fleet."""
        return any(self._files(folder.name, task_or_message) for folder in self._folder.glob("*"))

    def arrived(self, file: Path) -> None:
        file.unlink(missing_ok=True)

    def refuse(self, file: Path) -> None:
        """Put aside what the other fleet does not take."""
        refused = file.parents[1] / "refused"
        make_folder(refused)
        with usable(refused):
            file.replace(refused / file.name)

    def counts(self, fleet: str) -> tuple[int, int]:
        """How many wait for this fleet, and how many it refused."""
        return len(self._files(fleet)), len(list((self._folder / fleet / "refused").glob("*.json")))

    def _waiting(self, fleet: str) -> Path:
        return self._folder / fleet / "waiting"

    def _files(self, fleet: str, crossing_id: str = "*") -> list[Path]:
        return sorted(self._waiting(fleet).glob(f"[0-9]*-{crossing_id}.json"))

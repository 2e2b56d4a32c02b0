"""The requests for other fleets that this machine has accepted: a file each, until the other fleet has it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from pydantic import ValidationError

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.crossing import Crossing
from torch_tasks.system.files import exclusive, flush_folder, make_folder, usable, write_private


class Crossings:
    """What waits on this machine for other fleets, and what they refused, in the order in which it was accepted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, crossing: Crossing) -> Crossing:
        """Have it on the disk behind all earlier ones, also after a power failure; returns what waits under its id.

        That is an earlier one if there is one of this id. :class:`StateFolderUnusable` if the disk does not take it;
        then it is not there.
        """
        with exclusive(self._folder / "lock"):
            files = self._files(crossing.fleet)
            for file in files:
                if _what(file) == (crossing.operation, crossing.id):
                    with suppress(FileNotFoundError):  # it has just arrived
                        return Crossing.model_validate_json(file.read_bytes())
            self._write(crossing, max(time.time_ns(), _number(files[-1]) + 1 if files else 0))
            return crossing

    def are_waiting(self, fleet: str) -> bool:
        return bool(self._files(fleet))

    def waiting(self, fleet: str) -> Iterator[tuple[Path, Crossing]]:
        """Those that wait for this fleet; one that cannot be read is left where it is, and the last to be named."""
        broken: list[Path] = []
        for file in self._files(fleet):
            try:
                yield file, Crossing.model_validate_json(file.read_bytes())
            except FileNotFoundError:
                continue
            except ValidationError:
                broken.append(file)
        if broken:
            raise StateFolderUnusable(
                f"{broken[0]} is not what Torch wrote, and neither are {len(broken) - 1} others beside it: they cannot "
                f"be brought to fleet {fleet}. Put them back from a backup, or delete them"
            )

    def waits(self, operation: str, request_id: str) -> bool:
        """Whether this still waits here, for whichever fleet."""
        return any(_what(file) == (operation, request_id) for name in self.fleets() for file in self._files(name))

    def arrived(self, file: Path) -> None:
        file.unlink(missing_ok=True)

    def refuse(self, file: Path, crossing: Crossing, why: str) -> None:
        """Put aside, with the reason, what the other fleet does not take."""
        refused = self._folder / crossing.fleet / "refused"
        make_folder(refused)
        write_private(refused / file.name, crossing.model_copy(update={"refusal": why}).model_dump_json())
        with usable(refused):
            flush_folder(refused)
        file.unlink(missing_ok=True)

    def one_at_a_time(self, fleet: str) -> AbstractContextManager[None]:
        """Let only one process of this machine bring what waits for this fleet."""
        return exclusive(self._folder / fleet / "lock")

    def fleets(self) -> list[str]:
        """The fleets for which something was ever accepted here."""
        return sorted(one.parent.name for one in self._folder.glob("*/waiting"))

    def counts(self, fleet: str) -> tuple[int, int]:
        """How many wait for this fleet, and how many it refused."""
        return len(self._files(fleet)), len(list((self._folder / fleet / "refused").glob("[0-9]*.json")))

    def note_trouble(self, fleet: str, text: str) -> None:
        """Why something waits though it was tried; empty if nothing does."""
        if text != self.trouble(fleet):
            write_private(self._trouble(fleet), text)

    def trouble(self, fleet: str) -> str:
        with suppress(FileNotFoundError):
            return self._trouble(fleet).read_text()
        return ""

    def _write(self, crossing: Crossing, number: int) -> None:
        waiting = self._waiting(crossing.fleet)
        file = waiting / f"{number:020d}-{crossing.operation}-{crossing.id}.json"
        make_folder(waiting)
        write_private(file, crossing.model_dump_json())
        try:
            with usable(file):
                for folder in (waiting, *waiting.parents[:3]):  # the folders may be new, too
                    flush_folder(folder)
        except StateFolderUnusable:
            file.unlink(missing_ok=True)
            raise

    def _waiting(self, fleet: str) -> Path:
        return self._folder / fleet / "waiting"

    def _trouble(self, fleet: str) -> Path:
        return self._folder / fleet / "trouble"

    def _files(self, fleet: str) -> list[Path]:
        return sorted(self._waiting(fleet).glob("[0-9]*.json"))


def _number(file: Path) -> int:
    return int(file.name.partition("-")[0])


def _what(file: Path) -> tuple[str, str]:
    """The operation and the id that are in the file's name."""
    _, operation, request_id = file.name.removesuffix(".json").split("-", 2)
    return operation, request_id

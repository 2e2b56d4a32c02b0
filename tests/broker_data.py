"""The data of this machine's own broker on the disk, whichever program the broker is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class BrokerData:
    """The append-only files, or DragonflyDB's snapshots, in a broker's folder; the broker must not run."""

    def __init__(self, home: Path) -> None:
        self._home = home

    @property
    def places(self) -> list[Path]:
        return [*self._home.glob("appendonlydir"), *self._home.glob("dump*.dfs")]

    def lose(self) -> None:
        """Remove the data."""
        for place in self.places:
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()

    def copy_to(self, folder: Path) -> None:
        """Copy the data, which must be there, to a folder."""
        assert self.places, "the broker has written its data"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for place in self.places:
            copy = shutil.copytree if place.is_dir() else shutil.copy
            copy(place, folder / place.name)

    def go_back_to(self, folder: Path) -> None:
        """Replace the data by a copy."""
        self.lose()
        shutil.copytree(folder, self._home, dirs_exist_ok=True)


@contextmanager
def without_dragonfly() -> Iterator[None]:
    """Hide ``dragonfly``, which has no append-only file and so loses its last seconds at a kill -9."""
    folders = [folder for folder in os.get_exec_path() if not (Path(folder) / "dragonfly").exists()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join(folders))
        yield

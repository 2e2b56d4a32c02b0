"""What a broker of this machine's own has on its disk, whichever program it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class BrokerData:
    """The data in a broker's folder: an append-only file's folder, or DragonflyDB's snapshots. It must not run."""

    def __init__(self, home: Path) -> None:
        self._home = home

    @property
    def places(self) -> list[Path]:
        """What the data lie in."""
        return [*self._home.glob("appendonlydir"), *self._home.glob("dump*.dfs")]

    def lose(self) -> None:
        """Be empty at the next start."""
        for place in self.places:
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()

    def copy_to(self, folder: Path) -> None:
        """Keep a copy of them, of which there must be some."""
        assert self.places, "the broker has written its data"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for place in self.places:
            copy = shutil.copytree if place.is_dir() else shutil.copy
            copy(place, folder / place.name)

    def go_back_to(self, folder: Path) -> None:
        """Take the data of a copy."""
        self.lose()
        shutil.copytree(folder, self._home, dirs_exist_ok=True)


@contextmanager
def without_dragonfly() -> Iterator[None]:
    """No ``dragonfly`` is on PATH: it has no append-only file, so kill -9 takes its last seconds along."""
    folders = [folder for folder in os.get_exec_path() if not (Path(folder) / "dragonfly").exists()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join(folders))
        yield

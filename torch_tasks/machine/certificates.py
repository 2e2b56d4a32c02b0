"""The certificates of this machine: one file for each release of each kind's program that was tried here."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter

from torch_tasks.model.certificate import Certificate
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import make_folder, write_private


class _NotedRelease(BaseModel):
    """The release that a program's file printed."""

    written: int
    release: str


_NOTED = TypeAdapter(dict[str, _NotedRelease])


class Certificates:
    """Those in one state folder. One that another release of Torch wrote does not count: its rules were others."""

    def __init__(self, state: StateFolder) -> None:
        self._folder = state.certificates

    def file(self, kind: str, release: str) -> Path:
        return self._folder / kind / f"{quote(release, safe='')}.json"

    def keep(self, certificate: Certificate) -> Path:
        """Write it; returns its file."""
        file = self.file(certificate.kind, certificate.release)
        make_folder(file.parent)
        write_private(file, certificate.model_dump_json(indent=1) + "\n")
        return file

    def get(self, kind: str, release: str) -> Certificate | None:
        """The certificate of this release; none if it was not tried here, or its file cannot be read."""
        found = _read(self.file(kind, release))
        return found if found and found.torch == version("torch-tasks") else None

    def kinds(self) -> set[str]:
        """The kinds of which any release was tried here."""
        return {file.parent.name for file in self._folder.glob("*/*.json")}

    # ── what programs print of themselves ────────────────────────────────────────────────────────────────────────────

    def release_in(self, program: Path) -> str | None:
        """The release that this very file printed last: some programs take seconds for it."""
        noted = self._noted().get(os.path.realpath(program))
        return noted.release if noted and noted.written == program.stat().st_mtime_ns else None

    def note_release(self, program: Path, release: str) -> None:
        """Remember the release that the file printed."""
        noted = self._noted()
        new = _NotedRelease(written=program.stat().st_mtime_ns, release=release)
        if noted.get(os.path.realpath(program)) != new:
            make_folder(self._folder)
            write_private(self._releases, _NOTED.dump_json({**noted, os.path.realpath(program): new}).decode())

    @property
    def _releases(self) -> Path:
        return self._folder / "releases.json"

    def _noted(self) -> dict[str, _NotedRelease]:
        try:
            return _NOTED.validate_json(self._releases.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}


def _read(file: Path) -> Certificate | None:
    try:
        return Certificate.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None

"""The certificates of this machine: one file for each release of each kind's program that was tried here."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from torch_tasks.model.certificate import Certificate
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import make_folder, write_private


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

    def has_any(self, kind: str) -> bool:
        """Whether any release of the kind's program was tried here."""
        return any(self._folder.glob(f"{kind}/*.json"))


def _read(file: Path) -> Certificate | None:
    try:
        return Certificate.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None

"""The file of a backup: a zip archive for its owner alone, written whole or not at all, each part with its digest.

The parts come first, in the order in which they were read; the manifest names them and is signed by the node that made
the archive.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, Self

from pydantic import ValidationError

from torch_tasks.backup.manifest import LAYOUT, Manifest, Part
from torch_tasks.errors import BackupDamaged, BackupNotWritten, BackupTooNew, TorchError
from torch_tasks.model.fields import readable
from torch_tasks.system.files import flush_folder

MANIFEST, SIGNATURE, FLEET = "manifest.json", "manifest.signature", "fleet.keys"
_LONGEST_MANIFEST = 16 << 20
_CHUNK = 1 << 20


class ArchiveWriter:
    """Writes one archive beside its place, and puts it there when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: list[Part] = []

    def __enter__(self) -> Self:
        with self._named_errors():
            _remove_abandoned(self.path)
            self._file = NamedTemporaryFile(
                prefix=_beginning(self.path), suffix=_ENDING, dir=self.path.parent, delete=False
            )
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)
        return self

    def __exit__(self, *raised: Any) -> None:
        """Remove what was written, unless :meth:`finish` has put it in its place."""
        self._zip.fp = None  # else it would end the archive when it is collected
        with suppress(OSError):
            self._file.close()
        with suppress(FileNotFoundError):
            Path(self._file.name).unlink()

    @contextmanager
    def part(self, name: str) -> Iterator[DigestedFile]:
        """A new part, open for writing."""
        with self._named_errors():
            with self._zip.open(zipfile.ZipInfo(name), "w", force_zip64=True) as opened:
                file = DigestedFile(opened)
                yield file
            self.parts.append(Part(name=name, bytes=file.bytes, sha256=file.digest.hexdigest()))

    def finish(self, manifest: str, signature: str) -> None:
        """Write what says what is in it, and put the archive in its place."""
        with self._named_errors():
            self._zip.writestr(MANIFEST, manifest)
            self._zip.writestr(SIGNATURE, signature)
            self._zip.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            Path(self._file.name).replace(self.path)
            flush_folder(self.path.parent)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what_to_do = "Free room there" if is_full else "Make that folder writable for this user"
            raise BackupNotWritten(
                f"the backup {self.path} was not written: {error.strerror or error}. {what_to_do}, or choose another "
                "place. A backup that was there before is as it was"
            ) from error


class DigestedFile:
    """A part that is being written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.bytes += len(data)
        self._file.write(data)


_ENDING = ".part"


def _beginning(path: Path) -> str:
    return f".{path.name}."


def _remove_abandoned(path: Path) -> None:
    """Remove what processes left that were killed while they wrote this archive."""
    for left in path.parent.glob(f"{_beginning(path)}*{_ENDING}"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


class Archive:
    """An archive that is there; what is wrong with it is raised as :class:`BackupDamaged`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._named_errors():
            self._zip = zipfile.ZipFile(path)
            self.manifest_text = self._text(MANIFEST)
            self.signature = self._text(SIGNATURE)
        try:
            self.manifest = Manifest.model_validate_json(self.manifest_text)
        except ValidationError as error:
            raise self._not_understood(readable(error)) from None
        if self.manifest.layout > LAYOUT:
            raise self._too_new()

    def check(self) -> None:
        """Read all of it, and compare each part with its digest."""
        named = {part.name for part in self.manifest.parts}
        if extra := set(self._zip.namelist()) - named - {MANIFEST, SIGNATURE}:
            raise self._damaged(f"it has parts that its manifest does not name: {', '.join(sorted(extra))}")
        for part in self.manifest.parts:
            for _ in self.read(part.name):
                pass

    def read(self, name: str) -> Iterator[bytes]:
        """A part in pieces; what is wrong with it is raised at its end at the latest."""
        part = next((one for one in self.manifest.parts if one.name == name), None)
        if part is None:
            raise self._damaged(f"it has no part {name}")
        digest, size = hashlib.sha256(), 0
        with self._named_errors(), self._zip.open(name) as file:
            while data := file.read(_CHUNK):
                digest.update(data)
                size += len(data)
                if size > part.bytes:
                    break
                yield data
        if (size, digest.hexdigest()) != (part.bytes, part.sha256):
            raise self._damaged(f"its part {name} is not what was written: its digest is another one")

    def lines(self, name: str) -> Iterator[str]:
        """The lines of a part, which is text."""
        rest = b""
        for data in self.read(name):
            *whole, rest = (rest + data).split(b"\n")
            yield from (line.decode() for line in whole)

    def names(self, beginning: str) -> list[str]:
        """The parts whose names begin so."""
        return [part.name for part in self.manifest.parts if part.name.startswith(beginning)]

    def has(self, name: str) -> bool:
        return any(part.name == name for part in self.manifest.parts)

    def close(self) -> None:
        self._zip.close()

    def _text(self, name: str) -> str:
        with self._zip.open(name) as file:
            data = file.read(_LONGEST_MANIFEST + 1)
        if len(data) > _LONGEST_MANIFEST:
            raise self._damaged(f"its {name} is too long")
        return data.decode()

    def _damaged(self, why: str) -> BackupDamaged:
        return BackupDamaged(f"the backup {self.path} cannot be used: {why}. Take another one")

    def _not_understood(self, why: str) -> TorchError:
        """The error of a manifest that does not fit; that of a later version is one of its own."""
        with suppress(ValueError, TypeError, AttributeError):
            if json.loads(self.manifest_text).get("layout") > LAYOUT:
                return self._too_new()
        return self._damaged(f"its manifest cannot be read: {why}")

    def _too_new(self) -> BackupTooNew:
        return BackupTooNew(
            f"the backup {self.path} was made by a later version of Torch, which lays it out in another way (layout "
            f"above {LAYOUT}); use that version"
        )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self._damaged("there is no such file") from None
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, UnicodeDecodeError, NotImplementedError) as error:
            raise self._damaged(f"it is no whole archive ({error})") from None

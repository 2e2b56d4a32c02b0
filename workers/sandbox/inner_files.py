"""Files in an agent's own folders, which its program may have replaced by links: none on the way is followed."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LARGEST = 8 << 20


@dataclass(frozen=True)
class InnerFile:
    """A file below a folder that the program cannot replace; an OSError where something else is in the way."""

    root: Path
    below: Path

    def changed_ns(self) -> int | None:
        """When it was last written; None if there is none."""
        with suppress(FileNotFoundError), self._folder() as folder:
            found = os.stat(self.below.name, dir_fd=folder, follow_symlinks=False)
            return found.st_mtime_ns if stat.S_ISREG(found.st_mode) else None
        return None

    def read(self) -> bytes:
        """What stands in it; nothing if it is no plain file, or longer than any such file is."""
        with self._folder() as folder:
            handle = os.open(self.below.name, os.O_RDONLY | _PLAIN, dir_fd=folder)
            with os.fdopen(handle, "rb") as opened:
                is_plain = stat.S_ISREG(os.fstat(handle).st_mode)
                text = opened.read(_LARGEST + 1) if is_plain else b""
                return text if len(text) <= _LARGEST else b""

    def write(self, text: bytes, changed_ns: int) -> None:
        """Put it in place whole, as last changed at this time."""
        new = f".{self.below.name}.{secrets.token_hex(4)}"
        with self._folder(make=True) as folder:
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=folder)
            try:
                with os.fdopen(handle, "wb") as opened:
                    opened.write(text)
                    opened.flush()
                    os.utime(handle, ns=(changed_ns, changed_ns))
                os.replace(new, self.below.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(new, dir_fd=folder)
                raise

    def date(self, changed_ns: int) -> None:
        """Have it be last changed at this time."""
        with self._folder() as folder:
            os.utime(self.below.name, ns=(changed_ns, changed_ns), dir_fd=folder, follow_symlinks=False)

    def remove(self) -> None:
        with suppress(FileNotFoundError), self._folder() as folder:
            os.unlink(self.below.name, dir_fd=folder)

    @contextmanager
    def _folder(self, *, make: bool = False) -> Iterator[int]:
        """Its folder, opened step by step from the root."""
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in self.below.parts[:-1]:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=handle)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

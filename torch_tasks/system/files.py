"""Private files, written whole, locked by one process at a time; and the bells that wake an agent's worker."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.state_folder import BELL, StateFolder


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Let only one process of this machine in at a time; a lock ends with the process that holds it."""
    make_folder(lock.parent)
    with usable(lock):
        file = lock.open("ab")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_folder(folder: Path) -> None:
    """Make the folder, with its parents, for its owner alone."""
    with usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)


def write_private(file: Path, text: str) -> None:
    """Write the file for its owner alone; a reader sees the old text or the new, never a part."""
    with usable(file):
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(handle, "w") as temporary:
                temporary.write(text)
                temporary.flush()
                os.fsync(temporary.fileno())
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def open_plain(file: Path) -> BinaryIO:
    """Open a file that an agent's program may have replaced; FileNotFoundError for anything but a file of its own.

    A link could lead to what only this process may read, and a pipe would hold it up.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "is no file", str(file)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(errno.ENOENT, "is no file", str(file))
    return os.fdopen(handle, "rb")


def read_plain(file: Path) -> bytes:
    """What stands in a file that an agent's program may have replaced: see :func:`open_plain`."""
    with open_plain(file) as opened:
        return opened.read()


def set_mark(file: Path) -> None:
    """Make an empty file where an agent's program may have put a link, which is not followed."""
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def flush_folder(folder: Path) -> None:
    """Make sure that a file made in the folder is there even after a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turn an :class:`OSError` in here into :class:`StateFolderUnusable` for this path."""
    try:
        yield
    except OSError as error:
        remedy = "Make its folder writable for this user, or set TORCH_STATE_DIR to one that is"
        raise StateFolderUnusable(f"cannot write {path}: {error.strerror or error}. {remedy}") from error


def ring(agent_folder: Path) -> None:
    """Ring the bell of the agent's worker, if one waits at it."""
    try:
        handle = os.open(agent_folder / BELL, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return
    with suppress(OSError):  # the pipe is full of rings already
        os.write(handle, b"x")
    os.close(handle)


def ring_all(state_dir: Path) -> None:
    for folder in StateFolder(state_dir).agents():
        ring(folder)

"""Private files, written whole, locked by one process at a time; and the bells that wake an agent's worker."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.state_folder import StateFolder


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
        handle = os.open(agent_folder / "bell", os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return
    with suppress(OSError):  # the pipe is full of rings already
        os.write(handle, b"x")
    os.close(handle)


def ring_all(state_dir: Path) -> None:
    for folder in StateFolder(state_dir).agents():
        ring(folder)

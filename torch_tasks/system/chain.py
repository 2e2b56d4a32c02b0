"""A log that only grows: each line holds a hash over itself and the line before, so that no change goes unseen.

The log is a folder of files, ``000001.jsonl`` and so on, written by any number of processes of one machine. A line is
``{"n": 17, "entry": …, "hash": "…"}``; the first line of a file carries the chain over from the file before. What
:meth:`ChainedLog.append` has returned for survives the end of any process; with ``durable``, that of the machine, too.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from torch_tasks.errors import AuditNotWritten
from torch_tasks.system.chain_check import BrokenChain, ChainCheck, CheckedFile, CheckedLog
from torch_tasks.system.chain_lines import END, HASH, PRUNED, Head, hash_of, lines_of
from torch_tasks.system.files import flush_folder, make_folder

_BLOCK = 8192
CONTINUED = "log.continued"
"""The first entry of each file."""
REPAIRED = "log.repaired"
"""The entry that says that a line was unfinished: its writer had died, so nobody was told that it is there."""


class ChainEntry(NamedTuple):
    number: int
    hash: str
    value: dict[str, Any]


class ChainedLog:
    """The log in one folder."""

    def __init__(self, folder: Path, file_bytes: int) -> None:
        self.folder = folder
        self._file_bytes = file_bytes

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, value: Mapping[str, Any], *, durable: bool = False) -> Head:
        """Add an entry; :class:`AuditNotWritten` if it could not be, and then nothing of it is there."""
        with self._turn():
            file, handle = self._open()
            try:
                last = self._repair(handle)
                if os.fstat(handle).st_size >= self._file_bytes:
                    os.close(handle)
                    handle = -1
                    file, handle, last = self._begin_file(int(file.stem) + 1, last)
                head = _write(handle, last, value)
                if durable:
                    os.fdatasync(handle)
            finally:
                if handle >= 0:
                    os.close(handle)
        return head

    def flush(self) -> None:
        """Make sure that what was appended so far survives the end of the machine."""
        if files := self.files():
            with _written(self.folder):
                handle = os.open(files[-1], os.O_RDONLY)
                try:
                    os.fdatasync(handle)
                finally:
                    os.close(handle)

    def prune(self, before: float) -> list[str]:
        """Delete the files whose last entry was written before this moment; the log says which, and what was last."""
        old = [file for file in self.files()[:-1] if file.stat().st_mtime < before]
        if old:
            last = _entries_of(old[-1])[-1]
            value = {"what": PRUNED, "through": last.number, "hash": last.hash, "files": [file.name for file in old]}
            self.append(value, durable=True)
            with self._turn():  # not while somebody reads them
                for file in old:
                    file.unlink(missing_ok=True)
        return [file.name for file in old]

    def files(self) -> list[Path]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - each entry asks for this, and paths take longer
        except FileNotFoundError:
            return []
        return [self.folder / name for name in sorted(names) if name.endswith(".jsonl")]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one thread of one process write at a time."""
        with _written(self.folder):
            try:
                lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                make_folder(self.folder)
                lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)

    def _open(self) -> tuple[Path, int]:
        files = self.files()
        if not files:
            file, handle, _ = self._begin_file(1, Head(0, ""))
            return file, handle
        return files[-1], os.open(files[-1], os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def _begin_file(self, number: int, last: Head) -> tuple[Path, int, Head]:
        """A new file, which is there with its first line or not at all."""
        file = self.folder / f"{number:06}.jsonl"
        unfinished = self.folder / "next"
        handle = os.open(unfinished, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            head = _write(handle, last, {"what": CONTINUED, "after": last.number, "before": last.hash})
            os.fsync(handle)
            unfinished.replace(file)
            flush_folder(self.folder)
        except BaseException:
            os.close(handle)
            raise
        return file, handle, head

    @staticmethod
    def _repair(handle: int) -> Head:
        """The last entry; an unfinished line after it is taken away, and that is noted."""
        size = os.fstat(handle).st_size
        tail = _tail(handle, size)
        whole = tail[: tail.rfind(b"\n") + 1]
        last = _head_of(whole[whole.rfind(b"\n", 0, -1) + 1 : -1])
        if len(whole) == len(tail):
            return last
        torn = tail[len(whole) :]
        os.ftruncate(handle, size - len(torn))
        return _write(handle, last, {"what": REPAIRED, "bytes": len(torn), "sha256": sha256(torn).hexdigest()})

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def entries(self) -> Iterator[ChainEntry]:
        """All entries that can be read, oldest first."""
        for file in self.files():
            yield from _entries_of(file)

    def head(self) -> Head | None:
        """The last entry; None if there is none."""
        for file in reversed(self.files()):
            with _written(self.folder), file.open("rb") as opened:
                handle = opened.fileno()
                tail = _tail(handle, os.fstat(handle).st_size)
                whole = tail[: tail.rfind(b"\n") + 1]
                if whole:
                    return _head_of(whole[whole.rfind(b"\n", 0, -1) + 1 : -1])
        return None

    def has(self, head: Head) -> bool:
        """Whether this entry is in the log, or was pruned; what comes before it is not looked at."""
        beginning = b'{"n":%d,' % head.number
        for file in reversed(self.files()):
            text = file.read_bytes()
            start = 0 if text.startswith(beginning) else text.find(b"\n" + beginning) + 1
            if start or text.startswith(beginning):
                return text[start:].partition(b"\n")[0].endswith(HASH + head.hash.encode() + END)
        first = next(self.entries(), None)
        return first is not None and first.number > head.number

    def verify(self) -> BrokenChain | None:
        """The first bad place; None if the log is as it was written, as far as it goes."""
        return self.check({}).broken

    def check(self, known: Mapping[str, CheckedFile]) -> CheckedLog:
        """Read the log, without the files that an earlier look found good and that have not changed since.

        Writers wait only while the last file is read: those before it change no more.
        """
        closed = dict(known)
        with suppress(FileNotFoundError):  # one was pruned meanwhile
            _, closed = ChainCheck(self.files()[:-1]).run(known)
        with suppress(FileNotFoundError), self._reading():
            broken, good = ChainCheck(self.files()).run(closed)
            return CheckedLog(broken, good, sum(known.get(name) != one for name, one in good.items()))
        return CheckedLog(None, {}, 0)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Keep writers away, where the folder lets: a line that is being written is not taken for a broken one."""
        lock = os.open(self.folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield
        finally:
            os.close(lock)


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuditNotWritten(f"the audit in {folder} cannot be written: {error.strerror or error}") from error


def _write(handle: int, last: Head, value: Mapping[str, Any]) -> Head:
    """Write one line whole, or take away what was written of it."""
    body = json.dumps({"n": last.number + 1, "entry": value}, separators=(",", ":"), ensure_ascii=False)
    payload = body.encode(errors="backslashreplace")[:-1]
    digest = hash_of(last.hash, payload)
    line = payload + HASH + digest.encode() + END + b"\n"
    size = os.fstat(handle).st_size
    try:
        if os.write(handle, line) != len(line):
            raise OSError(28, "No space left on device")
    except OSError:
        os.ftruncate(handle, size)
        raise
    return Head(last.number + 1, digest)


def _tail(handle: int, size: int) -> bytes:
    """The end of a file, from the beginning of its last whole line at the latest."""
    length = _BLOCK
    while True:
        start = max(0, size - length)
        tail = os.pread(handle, size - start, start)
        if start == 0 or tail.count(b"\n", 0, tail.rfind(b"\n")) > 0:
            return tail
        length *= 4


def _head_of(line: bytes) -> Head:
    try:
        found = json.loads(line)
        return Head(int(found["n"]), str(found["hash"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"its last line cannot be read ({error}); 'torch-tasks audit verify' says more") from None


def _entries_of(file: Path) -> list[ChainEntry]:
    return [ChainEntry(line.number, line.hash, line.value) for line in lines_of(file) if line.number is not None]

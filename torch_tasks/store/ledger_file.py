"""The ledger's SQLite file: private, and safe among threads, forks and processes.

The threads of a process share one connection. It is closed before a fork, for SQLite's locks belong to the process
that took them, and opened anew when the file was moved away.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import WeakSet

from torch_tasks.errors import LedgerUnusable
from torch_tasks.store.shared_flush import SharedFlush
from torch_tasks.system.files import exclusive, flush_folder, make_folder, usable

BUSY_SECONDS = 15.0
"""How long to wait for another process that holds the file."""

LAYOUT_VERSION = 1
LAYOUT = """
CREATE TABLE tasks (
  number INTEGER PRIMARY KEY,      -- the order in which they were accepted
  broker TEXT NOT NULL,
  task_id TEXT NOT NULL,
  queue TEXT NOT NULL,
  state TEXT NOT NULL,
  touched REAL NOT NULL,           -- when the state was entered, or the task was last seen to go on
  publisher TEXT,                  -- which process publishes it
  revision INTEGER NOT NULL DEFAULT 0,
  UNIQUE (broker, task_id)
);
CREATE INDEX tasks_by_state ON tasks (broker, state, touched);
CREATE TABLE papers (              -- apart, for they are large and the rows change often
  number INTEGER PRIMARY KEY REFERENCES tasks ON DELETE CASCADE,
  message TEXT,                    -- what was published; gone with the end
  account TEXT                     -- the record at its end
);
CREATE TABLE brokers (
  broker TEXT PRIMARY KEY,
  ledger TEXT NOT NULL,            -- what the broker knows this ledger by
  reconciled REAL,
  closing_at REAL NOT NULL DEFAULT 0
);
"""

_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class LedgerFile:
    """The file; every error of SQLite is raised as :class:`~torch_tasks.errors.LedgerUnusable`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path)
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._is_flushing: bool | None = None
        self.flush = SharedFlush(lambda: self.writing(flushed=True))
        """What several threads do through it at a time is flushed once."""
        _all.add(self)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for statements that change nothing."""
        with self._lock, self._named():
            yield self._open()

    @contextmanager
    def writing(self, *, flushed: bool) -> Iterator[sqlite3.Connection]:
        """One transaction; if ``flushed``, it is on the disk when it ends.

        If not, it survives the end of this process, but maybe not that of the machine.
        """
        with self._lock, self._named():
            connection = self._open()
            if flushed is not self._is_flushing:
                connection.execute(f"PRAGMA synchronous = {'FULL' if flushed else 'NORMAL'}")
                self._is_flushing = flushed
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                yield connection

    def give_back(self, pages: int) -> None:
        """Make the file smaller by at most so many free pages."""
        with self._lock, self._named():
            self._open().execute(f"PRAGMA incremental_vacuum({pages})").fetchall()

    def close(self) -> None:
        """Close the file until it is needed again."""
        with self._lock:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.close()
            self._connection = None

    def hold(self) -> None:
        """Close the file and keep all threads from opening it."""
        self._lock.acquire()
        self.close()

    def release(self, *, in_child: bool = False) -> None:
        """Undo :meth:`hold`; for a forked child the threads of its parent do not wait."""
        if in_child:
            self.flush.forget_threads()
        self._lock.release()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity() == self._opened:
                return self._connection
            self.close()
        self._create()
        # Another thread may close it before a fork; only the thread that holds the lock uses it.
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA journal_size_limit = 16777216")
            self._lay_out(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._opened, self._is_flushing = connection, self._identity(), None
        return connection

    def _identity(self) -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            found = os.stat(self._name)  # noqa: PTH116 - at every statement, and twice as fast
            return found.st_dev, found.st_ino
        return None

    def _create(self) -> None:
        """Make the file, for its owner only; SQLite gives its other files the same mode."""
        make_folder(self.path.parent)
        with usable(self.path):
            # An existing file is not opened: closing it would drop the locks of this process's other connections.
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                flush_folder(self.path.parent)
            if self.path.stat().st_mode & 0o077:
                self.path.chmod(0o600)

    def _lay_out(self, connection: sqlite3.Connection) -> None:
        if _version(connection) == 0:
            with exclusive(self.path.with_suffix(".lock")):
                if _version(connection) == 0:
                    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                    connection.execute("PRAGMA journal_mode = WAL").fetchall()
                    connection.executescript(f"BEGIN; {LAYOUT} PRAGMA user_version = {LAYOUT_VERSION}; COMMIT")
        if (version := _version(connection)) != LAYOUT_VERSION:
            raise LedgerUnusable(
                f"the ledger {self.path} was laid out by another version of Torch ({version}, not {LAYOUT_VERSION}). "
                "Use that version, or move the file away"
            )

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> LedgerUnusable:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_DAMAGED):
            return LedgerUnusable(
                f"the ledger {self.path} is damaged: {error}. Move it away and go on; its tasks that have not ended "
                "are then not put back if the broker loses them"
            )
        if name.startswith("SQLITE_BUSY"):
            return LedgerUnusable(f"the ledger {self.path} is held by another process: {error}. Try again")
        return LedgerUnusable(
            f"cannot use the ledger {self.path}: {error}. Make room and its folder writable for this user, "
            "or set TORCH_STATE_DIR to one that is"
        )


def readdress(path: Path, former: str, broker: str) -> None:
    """Have the rows of a former broker, in a file that no process uses, be those of another one."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE OR REPLACE tasks SET broker = ? WHERE broker = ?", (broker, former))
        connection.execute(
            "UPDATE OR REPLACE brokers SET broker = ?, reconciled = NULL WHERE broker = ?", (broker, former)
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


_all: WeakSet[LedgerFile] = WeakSet()
_held: list[LedgerFile] = []


def _before_fork() -> None:
    _held.extend(_all)
    for file in _held:
        file.hold()


def _after_fork(*, in_child: bool = False) -> None:
    while _held:
        _held.pop().release(in_child=in_child)


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=partial(_after_fork, in_child=True)
)

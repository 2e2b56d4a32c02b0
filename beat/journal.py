"""Beat's copy of every entry on disk, and of the signed heads of all audits, in case the broker forgets."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.store.timetable import EntryCopy
from torch_tasks.system.files import make_folder, usable

_BATCH = 200
_LAYOUT = """
CREATE TABLE IF NOT EXISTS entries (
  id TEXT PRIMARY KEY,
  revision INTEGER NOT NULL,
  state TEXT NOT NULL,
  fields TEXT NOT NULL,            -- the entry as the broker had it
  lines TEXT NOT NULL,             -- the latest lines of its history, by slot
  touched REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_heads (
  node TEXT PRIMARY KEY,
  signed TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (
  name TEXT PRIMARY KEY,           -- name, position, followed
  value TEXT NOT NULL
) WITHOUT ROWID;
"""


def kept_heads(folder: Path) -> Mapping[str, Mapping[str, str]]:
    """The signed heads of audits that the journals in a folder keep, by journal."""
    found: dict[str, Mapping[str, str]] = {}
    for path in sorted(folder.glob("*.sqlite")):
        journal = Journal(path)
        try:
            found[path.name] = journal.heads()
        finally:
            journal.close()
    return found


class Journal:
    """One SQLite file, which all beats with this state folder share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @property
    def name(self) -> str:
        """The name under which the broker knows this journal."""
        if not (name := self._place("name")):
            name = f"beat-{uuid.uuid4().hex}"
            self._note(name=name)
        return name

    @property
    def position(self) -> str:
        """The place in the stream of changes up to which the journal is complete; empty if it is new."""
        return self._place("position")

    @property
    def silence(self) -> float:
        """Seconds since :meth:`mark_followed`."""
        return time.time() - float(self._place("followed") or 0)

    def mark_followed(self, position: str) -> None:
        """Note that every change up to this place is in the journal."""
        self._note(position=position, followed=str(time.time()))

    def write(self, accounts: Iterable[EntryCopy]) -> None:
        """Store these copies of entries, except where the journal has a later revision."""
        now = time.time()
        rows = [
            (one.id, one.revision, one.state, json.dumps(one.fields), json.dumps(one.lines), now)
            for one in accounts
            if one.fields
        ]
        with self._open() as connection:
            connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "revision = excluded.revision, state = excluded.state, fields = excluded.fields, "
                "lines = excluded.lines, touched = excluded.touched WHERE excluded.revision > revision",
                rows,
            )

    def accounts(self) -> Iterator[list[EntryCopy]]:
        """All copies, in batches."""
        after = ""
        while True:
            with self._open() as connection:
                rows = connection.execute(
                    "SELECT id, fields, lines FROM entries WHERE id > ? ORDER BY id LIMIT ?", (after, _BATCH)
                ).fetchall()
            if not rows:
                return
            yield [EntryCopy(one, json.loads(fields), json.loads(lines)) for one, fields, lines in rows]
            after = rows[-1][0]

    def heads(self) -> dict[str, str]:
        """The latest signed head of each node's audit that was kept."""
        with self._open() as connection:
            return dict(connection.execute("SELECT node, signed FROM audit_heads").fetchall())

    def keep_heads(self, heads: Mapping[str, str]) -> None:
        if heads:
            with self._open() as connection:
                connection.executemany("INSERT OR REPLACE INTO audit_heads VALUES (?, ?)", heads.items())

    def prune(self, keep_seconds: float) -> None:
        """Delete entries that ended or were removed longer ago than this."""
        with self._open() as connection:
            connection.execute(
                "DELETE FROM entries WHERE state IN ('ended', 'removed') AND touched < ?", (time.time() - keep_seconds,)
            )

    def mark_seen(self, ids: Iterable[str]) -> None:
        """Note that the broker knows these entries now."""
        now = time.time()
        with self._open() as connection:
            connection.executemany("UPDATE entries SET touched = ? WHERE id = ?", [(now, one) for one in ids])

    def forget_unseen(self, since: float) -> None:
        """Delete entries that were not marked as seen since this moment, except those known to be removed."""
        with self._open() as connection:
            connection.execute("DELETE FROM entries WHERE touched < ? AND state != 'removed'", (since,))

    def close(self) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None

    def _place(self, name: str) -> str:
        with self._open() as connection:
            row = connection.execute("SELECT value FROM place WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def _note(self, **places: str) -> None:
        with self._open() as connection:
            connection.executemany("INSERT OR REPLACE INTO place VALUES (?, ?)", places.items())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction; an SQLite error becomes :class:`StateFolderUnusable`."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                with self._connection:
                    yield self._connection
            except sqlite3.Error as error:
                if self._connection:
                    self._connection.close()
                self._connection = None
                remedy = "Free disk space, make its folder writable, or move the file away: beat then makes a new one"
                raise StateFolderUnusable(f"cannot use beat's journal {self._path}: {error}. {remedy}") from error

    def _connect(self) -> sqlite3.Connection:
        make_folder(self._path.parent)
        with usable(self._path):
            self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_LAYOUT)
        return connection

"""A beat's memory on disk: what it knows of every entry, in case the broker forgets."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
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
  lines TEXT NOT NULL,             -- the latest of its history, by slot
  touched REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (
  name TEXT PRIMARY KEY,           -- name, position, followed
  value TEXT NOT NULL
) WITHOUT ROWID;
"""


class Journal:
    """A file; all beats with this state folder write the same one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    # ── how far it is ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def name(self) -> str:
        """What the broker knows it by."""
        if not (name := self._place("name")):
            name = f"beat-{uuid.uuid4().hex}"
            self._note(name=name)
        return name

    @property
    def position(self) -> str:
        """Up to where it has followed the stream of changes; empty if it never did."""
        return self._place("position")

    @property
    def silence(self) -> float:
        """For how many seconds it has not been written."""
        return time.time() - float(self._place("followed") or 0)

    def followed(self, position: str) -> None:
        """What changed up to this place stands here."""
        self._note(position=position, followed=str(time.time()))

    # ── what stands in it ────────────────────────────────────────────────────────────────────────────────────────

    def write(self, accounts: Iterable[EntryCopy]) -> None:
        """Note how these entries stand, unless something later is known."""
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
        """All that stands here, some at a time."""
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

    def prune(self, keep_seconds: float) -> None:
        """Forget what ended or was removed longer ago than this."""
        with self._open() as connection:
            connection.execute(
                "DELETE FROM entries WHERE state IN ('ended', 'removed') AND touched < ?", (time.time() - keep_seconds,)
            )

    def seen(self, ids: Iterable[str]) -> None:
        """The broker knows these."""
        now = time.time()
        with self._open() as connection:
            connection.executemany("UPDATE entries SET touched = ? WHERE id = ?", [(now, one) for one in ids])

    def forget_unseen(self, since: float) -> None:
        """Forget what the broker was not seen to know since this moment, but for what tells that it was removed."""
        with self._open() as connection:
            connection.execute("DELETE FROM entries WHERE touched < ? AND state != 'removed'", (since,))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None

    # ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _place(self, name: str) -> str:
        with self._open() as connection:
            row = connection.execute("SELECT value FROM place WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def _note(self, **places: str) -> None:
        with self._open() as connection:
            connection.executemany("INSERT OR REPLACE INTO place VALUES (?, ?)", places.items())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction; what goes wrong is told as :class:`StateFolderUnusable`."""
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
                remedy = "Make room and its folder writable, or move the file away: what it held is then read anew"
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

"""The ledger: the tasks that this machine enqueued, on its own disk.

A row is written and flushed before its task goes to the broker, and closed by the task's end. So
:mod:`torch_tasks.tasks.recovery` can put back what the broker forgets.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch_tasks.settings import Settings
from torch_tasks.store.ledger_file import LedgerFile
from torch_tasks.system.processes import birth, is_alive

PUBLISHING_SECONDS = 60.0
"""No publishing takes longer, even in a process that still lives."""
BRIEF_SECONDS = 1.0
"""A row younger than this is surely still being published."""
SEEN_SECONDS = 60.0
"""How often at most it is noted when a task was last seen: an idle machine shall not write all the time."""
PRUNE_PAGES = 2000


class RowState(StrEnum):
    """How far the publishing of a task is."""

    WRITTEN = "written"
    """A process is publishing it, or was killed while it did."""
    SPOOLED = "spooled"
    """It was accepted while the broker was away, and was not sent yet."""
    PUBLISHED = "published"
    LOST = "lost"
    """It came after the backup from which the broker was restored: whether it was done is not known."""
    WITHDRAWN = "withdrawn"
    """Enqueueing it failed, and its sender knows; the broker must forget it."""
    CLOSED = "closed"
    """It has ended; its account is kept."""


ROW_TRANSITIONS: dict[RowState, frozenset[RowState]] = {
    RowState.WRITTEN: frozenset(RowState),
    RowState.SPOOLED: frozenset({RowState.WRITTEN, RowState.PUBLISHED, RowState.WITHDRAWN, RowState.CLOSED}),
    RowState.PUBLISHED: frozenset(frozenset(RowState) - {RowState.SPOOLED}),
    RowState.LOST: frozenset({RowState.WRITTEN, RowState.PUBLISHED, RowState.LOST, RowState.CLOSED}),
    RowState.WITHDRAWN: frozenset({RowState.WRITTEN, RowState.CLOSED}),
    RowState.CLOSED: frozenset({RowState.CLOSED}),
}
_BEFORE = {
    state: json.dumps([before for before, after in ROW_TRANSITIONS.items() if state in after]) for state in RowState
}
"""The states from which a row may come into a state, as SQL reads a list."""


class Row(NamedTuple):
    number: int
    task_id: str
    queue: str
    state: RowState
    touched: float
    publisher: str | None
    revision: int

    @property
    def in_hands(self) -> bool:
        """Whether a living process is publishing it."""
        age = time.time() - self.touched
        if self.state is not RowState.WRITTEN or self.publisher is None or not -1 < age < PUBLISHING_SECONDS:
            return False
        if age < BRIEF_SECONDS:
            return True
        pid, _, born = self.publisher.partition(":")
        return is_alive(int(pid), born)


class _Broker(NamedTuple):
    ledger: str | None = None
    reconciled: float | None = None
    closing_at: float = 0


class Summary(NamedTuple):
    open: int
    spooled: int
    elsewhere: int
    """Open rows that belong to other brokers."""
    lost: int
    """Of the open ones, those of which a backup that was restored did not know."""
    reconciled: float | None
    """When the rows were last put back to the broker."""


_ROW = "SELECT number, task_id, queue, state, touched, publisher, revision FROM tasks WHERE broker = :broker AND "
_UNSENT = "state IN ('written', 'spooled', 'withdrawn')"
_ADOPTABLE = (
    "SELECT 1 FROM tasks AS former WHERE broker = ? "
    "AND NOT EXISTS (SELECT 1 FROM tasks WHERE broker = ? AND task_id = former.task_id) LIMIT 1"
)


class Ledger:
    """The rows of one broker's tasks in one file.

    Every method is one step on the disk, safe among threads and processes, or :class:`LedgerUnusable`. Threads that
    write at the same time share one flush.
    """

    def __init__(self, path: Path, broker: str) -> None:
        self.path = path
        self._broker = broker
        self._file = LedgerFile(path)

    def exists(self) -> bool:
        return self.path.exists()

    # ── from being accepted to the end ───────────────────────────────────────────────────────────────────────────

    def write(self, task_id: str, queue: str, message: str) -> RowState | None:
        """Note, on the disk, that a task is about to be published; returns the former state of its row, if it has one.

        The message that was written first stays: the same id twice is one task.
        """
        return self._file.flush.do(lambda file: self._write(file, task_id, queue, message))

    def write_all(self, tasks: Iterable[tuple[str, str, str]]) -> list[RowState | None]:
        """:meth:`write` each of these, an id, queue and message, in this order, with one flush: all of them or none."""
        return self._file.flush.do(lambda file: [self._write(file, *task) for task in tasks])

    def _write(self, file: sqlite3.Connection, task_id: str, queue: str, message: str) -> RowState | None:
        if self._add(file, task_id, queue, message):
            return None
        row = self._found_or_added(file, task_id, queue)
        self._enter(file, row.number, RowState.WRITTEN)
        return row.state

    def note(self, task_id: str, state: RowState) -> None:
        """Put a row into another state, if that may follow."""
        self.note_all([task_id], state)

    def note_all(self, task_ids: Iterable[str], state: RowState) -> None:
        """:meth:`note` it of each of these."""
        with self._file.writing(flushed=False) as file:
            file.executemany(
                "UPDATE tasks SET state = ?, touched = ?, publisher = NULL "
                "WHERE broker = ? AND task_id = ? AND state IN (SELECT value FROM json_each(?))",
                [(state, time.time(), self._broker, task_id, _BEFORE[state]) for task_id in task_ids],
            )

    def take_back(self, task_id: str, before: RowState | None, *, forgotten: bool) -> None:
        """Undo, on the disk, a :meth:`write` that returned ``before``.

        If the broker has not ``forgotten`` the task, the row stays as withdrawn, so that it will be.
        """
        with self._file.writing(flushed=True) as file:
            row = self._find(file, task_id)
            if row is None or row.state is RowState.CLOSED:
                return
            if before is not None:
                self._enter(file, row.number, before)
            elif forgotten:
                file.execute("DELETE FROM tasks WHERE number = ?", (row.number,))
            else:
                self._enter(file, row.number, RowState.WITHDRAWN)

    def close(self, task_id: str, account: Mapping[str, str], *, flushed: bool = False) -> None:
        """Keep the account of an ended task, whether it was enqueued here or not."""
        revision = int(account["revision"])
        with self._file.writing(flushed=flushed) as file:
            row = self._found_or_added(file, task_id, account["queue"])
            if row.state is not RowState.CLOSED or row.revision < revision:
                file.execute(
                    "UPDATE tasks SET state = 'closed', touched = ?, publisher = NULL, revision = ? WHERE number = ?",
                    (time.time(), revision, row.number),
                )
                file.execute(
                    "UPDATE papers SET message = NULL, account = ? WHERE number = ?", (json.dumps(account), row.number)
                )

    def is_as_read(self, row: Row) -> bool:
        """Whether no process has changed the row since it was read."""
        with self._file.reading() as file:
            return self._find(file, row.task_id) == row

    def drop(self, row: Row) -> None:
        """Delete a row, unless a process has changed it since it was read."""
        with self._file.writing(flushed=False) as file:
            file.execute(
                "DELETE FROM tasks WHERE number = ? AND state = ? AND touched = ?", (row.number, row.state, row.touched)
            )

    # ── putting back ─────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, row: Row) -> bool:
        """Make this process the publisher of the row; false if another process has changed it since it was read."""
        with self._file.writing(flushed=False) as file:
            claimed = file.execute(
                "UPDATE tasks SET state = 'written', touched = ?, publisher = ? "
                "WHERE number = ? AND state = ? AND touched = ?",
                (time.time(), _myself(os.getpid()), row.number, row.state, row.touched),
            )
            return claimed.rowcount == 1

    def seen(self, rows: Iterable[Row]) -> None:
        """Note that the broker has these tasks and they have not ended, unless that was noted a moment ago."""
        now = time.time()
        changed = [
            (now, row.number, row.state, row.touched)
            for row in rows
            if row.state is not RowState.PUBLISHED or abs(now - row.touched) > SEEN_SECONDS
        ]
        if changed:
            with self._file.writing(flushed=False) as file:
                file.executemany(
                    "UPDATE tasks SET state = 'published', touched = ? WHERE number = ? AND state = ? AND touched = ?",
                    changed,
                )

    def unsent(self) -> list[Row]:
        """The rows that wait to be sent or withdrawn, in order, without those that a living process is publishing."""
        return [row for row in self._rows(f"{_UNSENT} ORDER BY number") if not row.in_hands]

    def open_after(self, number: int, limit: int) -> list[Row]:
        """The next open rows, in the order in which they were accepted."""
        return self._rows("state <> 'closed' AND number > :number ORDER BY number LIMIT :limit", number, limit)

    def closed_after(self, number: int, limit: int) -> list[Row]:
        return self._rows("state = 'closed' AND number > :number ORDER BY number LIMIT :limit", number, limit)

    def longest_unseen(self, limit: int) -> list[Row]:
        """The published rows whose tasks were not seen for the longest time."""
        return self._rows("state = 'published' ORDER BY touched LIMIT :limit", limit=limit)

    def lost(self) -> list[Row]:
        """The rows of tasks that came after the backup from which the broker was restored."""
        return self._rows("state = 'lost' ORDER BY number")

    def adopt(self, former: str) -> int:
        """Have the rows of a former broker's tasks be this one's; returns how many of them are open.

        Those of tasks that have a row here already stay where they are. To the broker it is another ledger then, so
        that all of it is put back.
        """
        with self._file.reading() as file:
            if file.execute(_ADOPTABLE, (former, self._broker)).fetchone() is None:
                return 0
        with self._file.writing(flushed=True) as file:
            adopted = file.execute(
                "UPDATE OR IGNORE tasks SET broker = ? WHERE broker = ? RETURNING state", (self._broker, former)
            ).fetchall()
            file.execute("DELETE FROM brokers WHERE broker = ?", (self._broker,))
        return sum(state != RowState.CLOSED for (state,) in adopted)

    def message(self, row: Row) -> str:
        with self._file.reading() as file:
            found = file.execute("SELECT message FROM papers WHERE number = ?", (row.number,)).fetchone()
        return str(found[0])

    def message_of(self, task_id: str) -> str | None:
        """The message that was written for this task first; None if it has no row, or has ended."""
        with self._file.reading() as file:
            row = self._find(file, task_id)
        return self.message(row) if row and row.state is not RowState.CLOSED else None

    def account(self, row: Row) -> dict[str, str]:
        with self._file.reading() as file:
            found = file.execute("SELECT account FROM papers WHERE number = ?", (row.number,)).fetchone()
        return {str(name): str(value) for name, value in json.loads(found[0]).items()}

    def has_spooled(self) -> bool:
        return bool(self._rows("state = 'spooled' LIMIT 1"))

    def state(self, task_id: str) -> RowState | None:
        with self._file.reading() as file:
            row = self._find(file, task_id)
        return row.state if row else None

    def states(self, task_ids: Sequence[str]) -> dict[str, RowState]:
        """The states of those of these tasks that have a row."""
        with self._file.reading() as file:
            found = file.execute(
                "SELECT task_id, state FROM tasks WHERE broker = ? AND task_id IN (SELECT value FROM json_each(?))",
                (self._broker, json.dumps(task_ids)),
            )
            return {task_id: RowState(state) for task_id, state in found}

    # ── the broker as it was when it was last reconciled ─────────────────────────────────────────────────────────

    @property
    def name(self) -> str:
        """The name by which the broker knows this ledger."""
        with self._file.reading() as file:
            name = self._mine(file).ledger
        if name is None:
            with self._file.writing(flushed=True) as file:
                file.execute(
                    "INSERT OR IGNORE INTO brokers (broker, ledger) VALUES (?, hex(randomblob(8)))", (self._broker,)
                )
                name = self._mine(file).ledger
        return str(name)

    def reconciled(self) -> None:
        """Note that the rows were put back to the broker."""
        with self._file.writing(flushed=False) as file:
            file.execute("UPDATE brokers SET reconciled = ? WHERE broker = ?", (time.time(), self._broker))

    def is_closing_due(self, seconds: float) -> bool:
        """Whether no process has looked for ended tasks for so long."""
        with self._file.reading() as file:
            return not -1 < time.time() - self._mine(file).closing_at < seconds

    def note_closing(self) -> None:
        with self._file.writing(flushed=False) as file:
            file.execute("UPDATE brokers SET closing_at = ? WHERE broker = ?", (time.time(), self._broker))

    # ── housekeeping ─────────────────────────────────────────────────────────────────────────────────────────────

    def prune(self, keep_days: float) -> None:
        """Delete the rows that were closed longer ago than this, of all brokers, and free their room on the disk."""
        with self._file.writing(flushed=False) as file:
            gone = file.execute(
                "DELETE FROM tasks WHERE state = 'closed' AND touched < ?", (time.time() - keep_days * 86400,)
            )
        if gone.rowcount:
            self._file.give_back(PRUNE_PAGES)

    def summary(self) -> Summary:
        with self._file.reading() as file:
            mine = dict(
                file.execute(
                    "SELECT state, count(*) FROM tasks WHERE broker = ? AND state <> 'closed' GROUP BY state",
                    (self._broker,),
                ).fetchall()
            )
            others = file.execute(
                "SELECT count(*) FROM tasks WHERE broker <> ? AND state <> 'closed'", (self._broker,)
            ).fetchone()
            reconciled = self._mine(file).reconciled
        spooled, lost = mine.get(RowState.SPOOLED, 0), mine.get(RowState.LOST, 0)
        return Summary(sum(mine.values()), spooled, int(others[0]), lost, reconciled)

    def _rows(self, condition: str, number: int = 0, limit: int = 0) -> list[Row]:
        with self._file.reading() as file:
            found = file.execute(_ROW + condition, {"broker": self._broker, "number": number, "limit": limit})
            return [_row(values) for values in found.fetchall()]

    def _find(self, file: sqlite3.Connection, task_id: str) -> Row | None:
        values = file.execute(_ROW + "task_id = :task_id", {"broker": self._broker, "task_id": task_id}).fetchone()
        return _row(values) if values else None

    def _mine(self, file: sqlite3.Connection) -> _Broker:
        found = file.execute(
            "SELECT ledger, reconciled, closing_at FROM brokers WHERE broker = ?", (self._broker,)
        ).fetchone()
        return _Broker(*found) if found else _Broker()

    def _found_or_added(self, file: sqlite3.Connection, task_id: str, queue: str) -> Row:
        self._add(file, task_id, queue, None)
        row = self._find(file, task_id)
        assert row is not None
        return row

    def _enter(self, file: sqlite3.Connection, number: int, state: RowState) -> None:
        publisher = _myself(os.getpid()) if state is RowState.WRITTEN else None
        file.execute(
            "UPDATE tasks SET state = ?, touched = ?, publisher = ? "
            "WHERE number = ? AND state IN (SELECT value FROM json_each(?))",
            (state, time.time(), publisher, number, _BEFORE[state]),
        )

    def _add(self, file: sqlite3.Connection, task_id: str, queue: str, message: str | None) -> int | None:
        """The number of a new row; None if the task has a row."""
        added = file.execute(
            "INSERT OR IGNORE INTO tasks (broker, task_id, queue, state, touched, publisher) VALUES (?, ?, ?, ?, ?, ?)",
            (self._broker, task_id, queue, RowState.WRITTEN, time.time(), _myself(os.getpid())),
        )
        if not added.rowcount:
            return None
        file.execute("INSERT INTO papers (number, message) VALUES (?, ?)", (added.lastrowid, message))
        return added.lastrowid


def ledger_of(settings: Settings) -> Ledger | None:
    """The ledger of this process's broker; None if it is turned off."""
    return Ledger(settings.state.ledger, settings.broker().place) if settings.ledger else None


def _row(values: Iterable[Any]) -> Row:
    row = Row(*values)
    return row._replace(state=RowState(row.state))


@cache
def _myself(pid: int) -> str:
    return f"{pid}:{birth(pid)}"

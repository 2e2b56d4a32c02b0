"""The daily rollups: each machine keeps its own on its disk, and the broker has those of all machines."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from torch_tasks import keys
from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.rollup import NodeDay
from torch_tasks.system.files import make_folder

KEPT_DAYS = 400
_SCHEMA = """
CREATE TABLE IF NOT EXISTS days (day TEXT PRIMARY KEY, totals TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY CHECK (id = 0), text TEXT NOT NULL);
"""


class RollupPlace(BaseModel):
    """How far a machine's rollups are."""

    model_config = ConfigDict(extra="ignore")

    until: float | None = None
    """The moment of the last look; None after a node worker that ended in order."""
    read: dict[str, dict[str, list[float]]] = {}
    """What stood in each tally then, by agent and by the keys of the counts."""


class RollupBook:
    """One machine's rollups. Each look is one transaction, so that nothing is counted twice or not at all."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def place(self) -> RollupPlace:
        with self._open() as database:
            row = database.execute("SELECT text FROM place").fetchone()
        try:
            return RollupPlace.model_validate_json(row[0]) if row else RollupPlace()
        except ValidationError:
            return RollupPlace()

    def day(self, node: str, day: date) -> NodeDay:
        with self._open() as database:
            row = database.execute("SELECT totals FROM days WHERE day = ?", (day.isoformat(),)).fetchone()
        try:
            return NodeDay.model_validate_json(row[0]) if row else NodeDay(node=node, day=day)
        except ValidationError:
            return NodeDay(node=node, day=day)

    def write(self, place: RollupPlace, days: list[NodeDay]) -> None:
        with self._open() as database:
            rows = [(day.day.isoformat(), day.model_dump_json(exclude_defaults=True)) for day in days]
            database.executemany("INSERT OR REPLACE INTO days VALUES (?, ?)", rows)
            database.execute("INSERT OR REPLACE INTO place VALUES (0, ?)", (place.model_dump_json(),))
            kept = "SELECT day FROM days ORDER BY day DESC LIMIT ?"
            database.execute(f"DELETE FROM days WHERE day NOT IN ({kept})", (KEPT_DAYS,))  # noqa: S608 - no value in it

    def texts(self) -> dict[str, str]:
        """All days, as they are put on the broker."""
        with self._open() as database:
            return dict(database.execute("SELECT day, totals FROM days"))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        make_folder(self._file.parent)
        try:
            with closing(sqlite3.connect(self._file, timeout=10)) as database:
                database.executescript(_SCHEMA)
                with database:
                    yield database
        except sqlite3.Error as error:
            raise StateFolderUnusable(
                f"cannot use {self._file}, which has this machine's daily numbers: {error}"
            ) from None


class FleetRollups:
    """What lies on the broker: for each node a hash of its days."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def put(self, node: str, today: dict[str, str], book: RollupBook) -> None:
        """Put these days there; all that the machine knows, if the broker does not have as many."""
        texts = book.texts()
        with self._client.pipeline() as pipe:
            pipe.sadd(keys.ROLLED_UP, node)
            pipe.hset(keys.rollups(node), mapping=dict(today.items()))
            pipe.hlen(keys.rollups(node))
            *_, there = pipe.execute()
        if there < len(texts):
            self._client.hset(keys.rollups(node), mapping=dict(texts.items()))
        elif there > len(texts):
            gone = [str(day) for day in self._client.hkeys(keys.rollups(node)) if str(day) not in texts]
            self._client.hdel(keys.rollups(node), *gone)

    def since(self, day: date) -> list[NodeDay]:
        """The days of all nodes from this one on; what cannot be read is left out."""
        nodes = sorted(map(str, self._client.smembers(keys.ROLLED_UP)))
        with self._client.pipeline(transaction=False) as pipe:
            for node in nodes:
                pipe.hgetall(keys.rollups(node))
            found = pipe.execute()
        return [
            read
            for node, texts in zip(nodes, found, strict=True)
            for name, text in sorted(texts.items())
            if str(name) >= day.isoformat() and (read := _read(node, str(name), str(text)))
        ]


def _read(node: str, day: str, text: str) -> NodeDay | None:
    try:
        found = NodeDay.model_validate_json(text)
    except ValidationError:
        return None
    return found if (found.node, found.day.isoformat()) == (node, day) else None

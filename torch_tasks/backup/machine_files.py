"""Which files of a machine are in a backup, each under a name that holds on another machine, too.

What is a secret stays on its machine or is sealed: it is never sent. The worktrees, the logs, the sockets and what an
agent's program keeps for itself are in no backup.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch_tasks.config_files import user_config
from torch_tasks.errors import LedgerUnusable
from torch_tasks.settings import Settings
from torch_tasks.state_folder import CRASHES, JOURNAL, LAST_MESSAGE, MAIL, MESSAGES, PROGRAM, RETIRE_ORDER, RUNS
from torch_tasks.system.files import read_plain

AGENTS, BEAT, CONFIG, CROSSINGS = "agents/", "beat.sqlite", "config/", "crossings/"
KEYS, LEDGER, OUTBOX = "keys/", "ledger.sqlite", "outbox/"
_SETTINGS_FILE = "torch.toml"
"""The one file of the configuration that may hold passwords."""
_OF_AN_AGENT = (JOURNAL, LAST_MESSAGE, CRASHES, RETIRE_ORDER, RUNS, MESSAGES, MAIL, f"{PROGRAM}/{RUNS}")


class NamedPath(NamedTuple):
    """A file, or a folder with all in it, by its name in a backup."""

    name: str
    path: Path
    is_database: bool = False


def what_travels(settings: Settings) -> list[NamedPath]:
    """What is no secret."""
    state, place = settings.state, settings.broker().file_name
    agents = [
        NamedPath(f"{AGENTS}{folder.name}/{part}", folder / part) for folder in state.agents() for part in _OF_AN_AGENT
    ]
    return [
        NamedPath(LEDGER, state.ledger, is_database=True),
        NamedPath(BEAT, state.beat(place), is_database=True),
        NamedPath("rollups.sqlite", state.rollups, is_database=True),
        NamedPath(OUTBOX, state.outbox(place)),
        NamedPath(CROSSINGS, state.crossings),
        NamedPath("done-orders.jsonl", state.done_orders),
        NamedPath("holds.json", state.holds),
        NamedPath("STOP", state.stop),
        NamedPath("roster.json", state.roster),
        NamedPath("spent/", state.spent),
        NamedPath("audit/", state.audit),
        NamedPath("audit_heads.json", state.audit_heads),
        NamedPath("retired/", state.path / "retired"),
        *agents,
    ]


def configuration() -> list[NamedPath]:
    """The user's configuration, without what may hold passwords."""
    folder = user_config()
    names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    return [NamedPath(f"{CONFIG}{name}", folder / name) for name in names if name != _SETTINGS_FILE]


def secrets(settings: Settings) -> list[NamedPath]:
    """What only this machine's owner may see."""
    state = settings.state
    return [
        NamedPath(KEYS, settings.keys_folder),
        NamedPath("joined.json", state.joined),
        NamedPath("tokens.json", state.tokens),
        NamedPath("server.token", state.server_token),
        NamedPath("push.pem", state.push_key),
        NamedPath("push.json", state.push_subscriptions),
        NamedPath("flower.password", state.flower_password),
        NamedPath(f"{CONFIG}{_SETTINGS_FILE}", user_config() / _SETTINGS_FILE),
    ]


def read_all(wanted: list[NamedPath]) -> Iterator[tuple[str, bytes]]:
    """What is in these, by name; what is not there, or goes meanwhile, is left out."""
    for one in wanted:
        if one.is_database:
            if one.path.exists():
                yield one.name, _database(one.path)
            continue
        for path in _files(one.path):
            below = path.relative_to(one.path).as_posix()
            with contextlib.suppress(FileNotFoundError):
                yield one.name if below == "." else f"{one.name.rstrip('/')}/{below}", read_plain(path)


def _files(path: Path) -> Iterator[Path]:
    """The files at or below a path; no link is followed."""
    if path.is_symlink():
        return
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            if not name.endswith(".lock") and name != "lock" and not (Path(folder) / name).is_symlink():
                yield Path(folder) / name


def _database(path: Path) -> bytes:
    """An SQLite file as it is at one moment, whoever writes to it."""
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=path.parent) as folder:
        copy = Path(folder) / "copy"
        try:
            with (
                contextlib.closing(sqlite3.connect(path, timeout=15)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        except sqlite3.Error as error:
            raise LedgerUnusable(f"cannot copy {path}: {error}. Make room in its folder, and try again") from None
        return copy.read_bytes()

"""Logins that an agent shares with its user and others: each has a file of its own, and who renews one renews all.

Programs renew a login by renaming a new file over the old one. A file that is bound into a box takes no other's place,
and stays the old one if that happens outside; so the agent has a copy, and its worker carries what is newer.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch_tasks.system.files import write_private
from torch_tasks.workers.sandbox.inner_files import InnerFile

LOOK_SECONDS = 1.0
"""How often a worker looks whether a login was renewed."""
_SETTLED_NS = 200_000_000
"""A file that was changed less than this ago may still be written."""


class SharedLogins:
    """The logins of one agent's kind, by the user's files."""

    def __init__(self, files: Mapping[Path, InnerFile], known_file: Path) -> None:
        """``known_file`` keeps which of the user's logins the agent has, and from when."""
        self._files = files
        self._known_file = known_file
        self._known = _read(known_file)
        self._lock = threading.Lock()

    def carry(self, *, starts: bool = False) -> None:
        """Have what is newer on both sides. A program that ``starts`` has all logins of its user."""
        with self._lock:
            before = dict(self._known)
            for path, own in self._files.items():
                self._carry(path.resolve(), own, str(path), starts=starts)
            if self._known != before:
                write_private(self._known_file, json.dumps(self._known))

    def _carry(self, users: Path, own: InnerFile, name: str, *, starts: bool) -> None:
        theirs, mine = _changed_ns(users), own.changed_ns()
        if theirs is None:
            if self._known.pop(name, None) is not None:  # the user has logged out; a login of the agent's own stays
                own.remove()
        elif mine is None:
            if starts or self._known.get(name) != theirs:
                self._bring_in(users, own, name, theirs)
        elif theirs > mine:
            self._bring_in(users, own, name, theirs)
        elif mine > theirs and name in self._known:
            self._bring_out(own, users, name, mine)

    def _bring_in(self, users: Path, own: InnerFile, name: str, changed_ns: int) -> None:
        text = users.read_bytes()
        if _is_whole(name, text):
            own.write(text, changed_ns)
            self._known[name] = changed_ns

    def _bring_out(self, own: InnerFile, users: Path, name: str, changed_ns: int) -> None:
        text, now = own.read(), time.time_ns()
        if now - changed_ns < _SETTLED_NS and changed_ns <= now:
            return
        if not _is_whole(name, text):
            return
        changed_ns = min(changed_ns, now)  # one from the future would be the newest for ever
        if text != users.read_bytes():
            write_private(users, text.decode(errors="surrogateescape"))
        os.utime(users, ns=(changed_ns, changed_ns))
        own.date(changed_ns)
        self._known[name] = changed_ns


def _is_whole(name: str, text: bytes) -> bool:
    """Whether a file can be a login, and not one that is just being written."""
    if not text.strip():
        return False
    with suppress(ValueError):
        return not name.endswith(".json") or json.loads(text) is not None
    return False


def _changed_ns(path: Path) -> int | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.stat().st_mtime_ns
    return None


def _read(file: Path) -> dict[str, int]:
    with suppress(OSError, ValueError):
        found = json.loads(file.read_bytes())
        return {str(name): int(changed_ns) for name, changed_ns in found.items()} if isinstance(found, dict) else {}
    return {}

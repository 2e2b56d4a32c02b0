"""The logs of this machine's processes, read together: both forms of lines, in the order of their times."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

_FOR_PEOPLE = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\b")
_FORM = "%Y-%m-%d %H:%M:%S,%f"


class LogEntry(NamedTuple):
    """What a process logged at one time, with the lines that hang below it."""

    at: str
    """By this machine's clock, so that entries can be compared; empty if it does not say."""
    process: str
    text: str

    def concerns(self, *, task: str | None, agent: str | None) -> bool:
        """Whether it is about this task, and of this agent or about it."""
        return (task is None or task in self.text) and (
            agent is None or self.process == f"agent-{agent}" or _has_word(agent, self.text)
        )


class LogFiles:
    """These processes' logs; each call of :meth:`new` returns what was added since the last one."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = [_LogFile(name, path) for name, path in files.items()]

    def new(self) -> list[LogEntry]:
        return sorted((entry for file in self._files for entry in file.new()), key=lambda entry: entry.at)


class _LogFile:
    def __init__(self, process: str, path: Path) -> None:
        self._process = process
        self._path = path
        self._read = 0
        self._inode = 0
        self._at = ""

    def new(self) -> list[LogEntry]:
        """The entries since the last call, of whole lines; lines below an earlier entry are one of their own."""
        entries: list[LogEntry] = []
        for line in self._lines():
            if at := _time_of(line):
                self._at = at
            if at or not entries:
                entries.append(LogEntry(self._at, self._process, line))
            else:
                entries[-1] = entries[-1]._replace(text=f"{entries[-1].text}\n{line}")
        return entries

    def _lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read:
                    self._inode, self._read = status.st_ino, 0  # another file has its name, or it was emptied
                file.seek(self._read)
                added = file.read()
        except FileNotFoundError:
            return []
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode(errors="replace").splitlines()


def _time_of(line: str) -> str:
    if found := _FOR_PEOPLE.match(line):
        return found[1]
    if not line.startswith('{"at": "'):
        return ""
    try:
        at = datetime.fromisoformat(json.loads(line)["at"])
    except (ValueError, KeyError, TypeError):
        return ""
    return f"{at.astimezone():{_FORM}}"[:-3]


def _has_word(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None

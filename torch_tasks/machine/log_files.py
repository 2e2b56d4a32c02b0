"""The logs of this machine's processes, read together: every form of lines, in the order of their times.

Torch's processes write lines for people or for programs. The broker and Flower have forms of their own, and anything
may print: a line that is none of Torch's becomes one event that says where it comes from.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from torch_tasks.system.log_files_aside import put_aside
from torch_tasks.visible_text import escaped, hanging

_AGENT = "agent-"
_BY_CLOCK = "%Y-%m-%d %H:%M:%S,%f"
_LATE_SECONDS = 1.0
"""How long a file that was put aside is looked at: what another thread was writing then gets into it, too."""
_ABOUT = ("task", "caller", "trace")


class _Form(NamedTuple):
    """How lines begin that a program writes: with their time, their level, and then what they say."""

    source: str
    pattern: re.Pattern[str]
    time: str
    levels: Mapping[str, str] = {}


_FORMS = (
    _Form(
        "torch",
        re.compile(
            r"\[(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}): (?P<level>\w+)[^\]]*\] (?P<message>.*)", re.DOTALL
        ),
        _BY_CLOCK,
    ),
    _Form(
        "valkey",
        re.compile(
            r"\d+:[A-Z] (?P<at>\d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) (?P<level>[.*#-]) (?P<message>.*)", re.DOTALL
        ),
        "%d %b %Y %H:%M:%S.%f",
        {".": "debug", "-": "debug", "*": "info", "#": "warning"},
    ),
    _Form(
        "dragonfly",
        re.compile(r"(?P<level>[IWEF])(?P<at>\d{4} \d\d:\d\d:\d\d\.\d{6})\s+\d+ [^\]]+\] (?P<message>.*)", re.DOTALL),
        "%m%d %H:%M:%S.%f",
        {"I": "info", "W": "warning", "E": "error", "F": "critical"},
    ),
    _Form(
        "flower",
        re.compile(r"\[(?P<level>[DIWEC]) (?P<at>\d{6} \d\d:\d\d:\d\d) [^\]]+\] (?P<message>.*)", re.DOTALL),
        "%y%m%d %H:%M:%S",
        {"D": "debug", "I": "info", "W": "warning", "E": "error", "C": "critical"},
    ),
)
_OUTPUT = "output"
"""The source of a line in none of these forms: what a process printed."""


class LogEntry(NamedTuple):
    """What a process logged at one time, with the lines that hang below it."""

    at: str
    """By this machine's clock, so that entries can be compared; a line without a time has that of one beside it."""
    process: str
    text: str

    def concerns(self, *, task: str | None, agent: str | None) -> bool:
        """Whether it is about this task, and of this agent or about it."""
        return (task is None or task in self.text) and (
            agent is None or self.process == f"{_AGENT}{agent}" or _has_word(agent, self.text)
        )

    @property
    def name(self) -> str:
        """The process as people call it: an agent's worker by the agent's id."""
        return self.process.removeprefix(_AGENT)

    def for_people(self) -> list[str]:
        """Its lines as a person reads them, whichever form they were written in."""
        event = _event(self.text)
        if event is None:
            return self.text.split("\n")
        about = ", ".join(f"{name} {event[name]}" for name in _ABOUT if name in event)
        words = f"[{self.at}: {str(event.get('level', '')).upper()}] {event.get('message', '')}"
        lines = [f"{words} ({about})" if about else words, *filter(None, [str(event.get("error", ""))])]
        return hanging("\n".join(lines)).split("\n")

    def for_programs(self) -> str:
        """It as one JSON object on one line."""
        return self.text if _event(self.text) else escaped(json.dumps(self._as_event(), ensure_ascii=False))

    def _as_event(self) -> dict[str, str]:
        source, level, message = _OUTPUT, "info", self.text
        for form in _FORMS:
            if found := form.pattern.match(self.text):
                source, message = form.source, found["message"]
                level = form.levels.get(found["level"], found["level"].lower())
                break
        at = datetime.strptime(self.at, _BY_CLOCK).astimezone(UTC).isoformat(timespec="milliseconds")
        whose = {"agent": self.name} if self.process.startswith(_AGENT) else {}
        return {"at": at, "level": level, "message": message, "process": self.process, **whose, "source": source}


class LogFiles:
    """These processes' logs; each call of :meth:`new` returns what was added since the last one."""

    def __init__(self, files: Mapping[str, Path], *, lines: int | None = None) -> None:
        """Of what was put aside, the first call reads only as much as holds this many lines; None: all of it."""
        self._files = [_LogFile(name, path, lines) for name, path in files.items()]

    def new(self) -> list[LogEntry]:
        return sorted((entry for file in self._files for entry in file.new()), key=lambda entry: entry.at)


class _LogFile:
    """One log, also while it is put aside: what was added to the old file is read before the new one is."""

    def __init__(self, process: str, path: Path, lines: int | None) -> None:
        self._process = process
        self._path = path
        self._lines_wanted = lines
        self._old: list[tuple[float, _Reading]] = []
        """What was put aside, and when that was seen: another thread may have been writing to it then."""
        self._now: _Reading | None = None
        self._at = ""

    def new(self) -> list[LogEntry]:
        """The entries since the last call, of whole lines; lines below an earlier entry are one of their own."""
        entries: list[LogEntry] = []
        hangs = False
        for line in self._lines():
            at = _time_of(line)
            self._at = at or self._at
            if at or not hangs:
                entries.append(LogEntry(self._at, self._process, line))
                hangs = _event(line) is None  # what stands below an event is another one
            else:
                entries[-1] = entries[-1]._replace(text=f"{entries[-1].text}\n{line}")
        first = next((entry.at for entry in entries if entry.at), "") or self._changed_at()
        return [entry if entry.at else entry._replace(at=first) for entry in entries]

    def _changed_at(self) -> str:
        with suppress(FileNotFoundError):
            return _by_clock(datetime.fromtimestamp(self._path.stat().st_mtime).astimezone())
        return _by_clock(datetime.now().astimezone())

    def _lines(self) -> Iterator[str]:
        for _, old in self._old:
            yield from old.lines()
        while self._old and time.monotonic() - self._old[0][0] > _LATE_SECONDS:
            yield from self._old.pop(0)[1].rest()
        if self._now:
            yield from self._now.lines()
            if self._now.is_at(self._path):
                return
            yield from self._now.lines()  # what was added until it was put aside
        for following in self._following():
            if self._now:
                self._old.append((time.monotonic(), self._now))
            self._now = following
            yield from following.lines()

    def _following(self) -> list[_Reading]:
        """What comes after the file that was read last; at first, as many of the latest as are wanted."""
        files = _opened(self._path)
        if self._now is None:
            return _latest(files, self._lines_wanted)
        known = next((place for place, file in enumerate(files) if file.inode == self._now.inode), -1)
        for read in files[: known + 1]:
            read.close()
        return files[known + 1 :]


class _Reading:
    """A file that is read on and on, wherever it is moved."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.inode = os.fstat(file.fileno()).st_ino
        self._part = b""

    def lines(self) -> list[str]:
        """The lines that were added, as far as they are whole."""
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # it was emptied
            self._file.seek(0)
            self._part = b""
        *whole, self._part = (self._part + self._file.read()).split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def rest(self) -> list[str]:
        """The last lines of a file to which nothing is added any more."""
        last = self.lines()
        if self._part:
            last.append(self._part.decode(errors="replace"))
        self.close()
        return last

    def count_lines(self) -> int:
        """How many there are."""
        count = self._file.read().count(b"\n")
        self._file.seek(0)
        return count

    def is_at(self, path: Path) -> bool:
        with suppress(FileNotFoundError):
            return path.stat().st_ino == self.inode
        return True  # until there is another one

    def close(self) -> None:
        self._file.close()


def _opened(path: Path) -> list[_Reading]:
    """Every file of a log, the oldest first; they are opened anew if one is put aside meanwhile."""
    while True:
        known = _inodes(path)
        found = []
        for file, _ in known:
            with suppress(FileNotFoundError):
                found.append(_Reading(file.open("rb")))
        if [one.inode for one in found] == [inode for _, inode in known] and _inodes(path) == known:
            return found
        for one in found:
            one.close()


def _inodes(path: Path) -> list[tuple[Path, int]]:
    found = []
    for file in [*(file for _, file in sorted(put_aside(path), reverse=True)), path]:
        with suppress(FileNotFoundError):
            found.append((file, file.stat().st_ino))
    return found


def _latest(files: list[_Reading], lines: int | None) -> list[_Reading]:
    if lines is None:
        return files
    wanted: list[_Reading] = []
    count = 0
    for file in reversed(files):
        if wanted and count >= lines:
            file.close()
            continue
        wanted.insert(0, file)
        count += file.count_lines()
    return wanted


def _event(text: str) -> dict[str, Any] | None:
    """The event that a line for programs is."""
    if text.startswith('{"at": "'):
        with suppress(ValueError):
            found = json.loads(text)
            return found if isinstance(found, dict) else None
    return None


def _time_of(line: str) -> str:
    """When it was logged; empty if it does not say."""
    with suppress(ValueError, KeyError, TypeError):
        if event := _event(line):
            return _by_clock(datetime.fromisoformat(event["at"]).astimezone())
        for form in _FORMS:
            if found := form.pattern.match(line):
                return found["at"] if form.time == _BY_CLOCK else _by_clock(_read(found["at"], form.time))
    return ""


def _read(at: str, form: str) -> datetime:
    """A moment that a program wrote; where it leaves out the year, the latest that it can be."""
    if "%y" in form.lower():
        return datetime.strptime(at, form)
    today = datetime.now()
    moment = datetime.strptime(f"{today.year} {at}", f"%Y {form}")
    return moment if moment <= today + timedelta(days=1) else moment.replace(year=today.year - 1)


def _by_clock(moment: datetime) -> str:
    return f"{moment:{_BY_CLOCK}}"[:-3]


def _has_word(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None

"""What an agent's program reports of itself, in one language for all kinds."""

from __future__ import annotations

import contextlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from torch_tasks.machine import agent_folder as reports
from torch_tasks.model.task import Question, Usage

#: Events of former tasks are kept so long, for people who wonder.
_KEPT_SECONDS = 86400.0
_UNDATED = datetime.fromtimestamp(0, UTC)

REPORT = Path(__file__).parent / "hooks" / "report"
"""The program that a CLI's hooks run: ``report FOLDER BELL NAME [JSON]``."""


class EventKind(StrEnum):
    """What can happen to an agent's program."""

    STARTED = "started"
    ACCEPTED = "accepted"
    """It took a prompt; ``text`` is the prompt."""
    WORKING = "working"
    QUESTION = "question"
    """It waits for an answer to ``question``."""
    RESOLVED = "resolved"
    """The question was answered."""
    STOPPED = "stopped"
    """The turn is over; ``text`` is the answer."""
    FAILED = "failed"
    """The turn is over without an answer, for the reason ``error``; ``text`` says it in words."""
    INTERRUPTED = "interrupted"
    COMPACTING = "compacting"
    COMPACTED = "compacted"
    USAGE = "usage"
    """What one request cost."""
    ENDED = "ended"
    DONE = "done"
    """The agent itself reports that ``task`` is done."""
    FAIL = "fail"
    """The agent itself reports that ``task`` cannot be done."""
    PROGRESS = "progress"


ErrorKind = Literal["limit", "overloaded", "login", "other"]


@dataclass(frozen=True)
class ProgramEvent:
    """One thing that happened. The log that holds it fills in ``at`` and ``origin``."""

    kind: EventKind
    text: str = ""
    question: Question | None = None
    parts: tuple[Question, ...] = ()
    """All that is asked one after the other, if that is more than the one question."""
    error: ErrorKind | None = None
    until: datetime | None = None
    """When the limit ends, if it is one."""
    usage: Usage | None = None
    task: str = ""
    """Whose report it is, if it is the agent's own."""
    at: datetime = _UNDATED
    origin: str = ""
    """Where it was reported: ``hook Stop``."""


class EventLog(ABC):
    """All events of one program, in order. What is read once can be read again, by another process too."""

    @abstractmethod
    def mark(self) -> str:
        """Where the log ends now. Only the last mark need be remembered."""

    @abstractmethod
    def since(self, mark: str) -> list[ProgramEvent]:
        """What came after that; after an empty mark, all of it."""


Translate = Callable[[str, Mapping[str, Any]], ProgramEvent | None]
"""What an event's name and input mean; None for nothing that matters."""


class HookFolder(EventLog):
    """A folder with one file per event, whose names sort by time, as ``hooks/report`` and ``reports`` write them.

    A mark moves what is there into ``past``, so that a clock that is set back hides nothing that comes; only after the
    last mark can be read what came, and from the beginning all that is kept.
    """

    def __init__(self, folder: Path, translate: Translate) -> None:
        self.folder = folder
        self._past = folder / "past"
        self._translate = translate
        self._read: dict[str, ProgramEvent | None] = {}

    def mark(self) -> str:
        self._past.mkdir(parents=True, exist_ok=True)
        for name in _names(self.folder):
            (self.folder / name).rename(self._past / name)
        self._prune()
        return "past"

    def since(self, mark: str) -> list[ProgramEvent]:
        names = [self.folder / name for name in sorted(_names(self.folder))]
        before = [] if mark else [self._past / name for name in sorted(_names(self._past))]
        return [event for path in (*before, *names) if (event := self._event(path))]

    def _event(self, path: Path) -> ProgramEvent | None:
        if path.name not in self._read:
            self._read[path.name] = self._parse(path)
        return self._read[path.name]

    def _parse(self, path: Path) -> ProgramEvent | None:
        try:
            report = json.loads(path.read_bytes())
            at = datetime.fromtimestamp(report["at"] / 1000, UTC)
            given = report["input"] if isinstance(report["input"], dict) else {}
            event = _own_report(report["name"], given) or self._translate(report["name"], given)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # no hook's file, or an unknown release
            return None
        return replace(event, at=at, origin=event.origin or f"hook {report['name']}") if event else None

    def _prune(self) -> None:
        oldest = time.time() - _KEPT_SECONDS
        for name in _names(self._past):
            path = self._past / name
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
        self._read.clear()


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith(".")]  # noqa: PTH208
    except FileNotFoundError:
        return []


class JoinedLogs(EventLog):
    """Several logs as one, in the order of time."""

    def __init__(self, *logs: EventLog) -> None:
        self._logs = logs

    def mark(self) -> str:
        return json.dumps([log.mark() for log in self._logs])

    def since(self, mark: str) -> list[ProgramEvent]:
        marks = json.loads(mark) if mark else [""] * len(self._logs)
        events = [event for log, place in zip(self._logs, marks, strict=True) for event in log.since(place)]
        return sorted(events, key=lambda event: event.at)


_OWN = {reports.DONE: EventKind.DONE, reports.FAIL: EventKind.FAIL, reports.PROGRESS: EventKind.PROGRESS}


def _own_report(name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
    if name not in _OWN:
        return None
    return ProgramEvent(_OWN[name], text=str(given["text"]), task=str(given["task"]), origin="torch-tasks")


def transcript_of(events: Path) -> Path | None:
    """The transcript that the newest event in this folder names."""
    for file in sorted(events.glob("*.json"), reverse=True):
        try:
            return Path(json.loads(file.read_bytes())["input"]["transcript_path"])
        except (OSError, ValueError, LookupError, TypeError):  # not one of the hooks', or gone meanwhile
            continue
    return None

"""What agents' programs report, as the same events for all kinds."""

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
from torch_tasks.model.task import Question
from torch_tasks.model.usage import Usage

#: How long the events of former tasks are kept for people to look at.
_KEPT_SECONDS = 86400.0
_UNDATED = datetime.fromtimestamp(0, UTC)

REPORT = Path(__file__).parent / "hooks" / "report"
"""The program that a CLI's hooks run: ``report FOLDER BELL NAME [JSON]``."""


class EventKind(StrEnum):
    """What can happen to an agent's program."""

    STARTED = "started"
    ACCEPTED = "accepted"
    """The program took a prompt; ``text`` is the prompt."""
    WORKING = "working"
    QUESTION = "question"
    """The program waits for an answer to ``question``."""
    RESOLVED = "resolved"
    """The question was answered."""
    STOPPED = "stopped"
    """The turn is over; ``text`` is the answer."""
    FAILED = "failed"
    """The turn is over without an answer because of ``error``; ``text`` is its message."""
    INTERRUPTED = "interrupted"
    COMPACTING = "compacting"
    COMPACTED = "compacted"
    USAGE = "usage"
    """What one request cost."""
    ENDED = "ended"
    DONE = "done"
    """The agent itself reports that it has done ``task``."""
    FAIL = "fail"
    """The agent itself reports that it cannot do ``task``."""
    PROGRESS = "progress"


ErrorKind = Literal["limit", "overloaded", "login", "other"]


@dataclass(frozen=True)
class ProgramEvent:
    """One event; the log that holds it fills in ``at`` and ``origin``."""

    kind: EventKind
    text: str = ""
    question: Question | None = None
    parts: tuple[Question, ...] = ()
    """All questions, if the program asks several one after the other."""
    error: ErrorKind | None = None
    until: datetime | None = None
    """When the limit ends, if the error is a limit."""
    usage: Usage | None = None
    task: str = ""
    """The task that the agent reports on."""
    at: datetime = _UNDATED
    origin: str = ""
    """Where the event was reported: ``hook Stop``."""


class EventLog(ABC):
    """All events of one program, in order; every process can read them, and again."""

    @abstractmethod
    def mark(self) -> str:
        """Where the log ends now. Only the last mark stays valid."""

    @abstractmethod
    def since(self, mark: str) -> list[ProgramEvent]:
        """The events after the mark; all events if it is empty."""


Translate = Callable[[str, Mapping[str, Any]], ProgramEvent | None]
"""What an event's name and input mean; None if Torch does not need it."""


class HookFolder(EventLog):
    """A folder with one file per event, whose names sort by time, as ``hooks/report`` and ``agent_folder`` write them.

    A mark moves the files into ``past``, so that later events are found even if the clock is set back.
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
        folders = [self.folder] if mark else [self._past, self.folder]
        paths = [folder / name for folder in folders for name in sorted(_names(folder))]
        return [event for path in paths if (event := self._event(path))]

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
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no hook's file, or an unknown release
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
    """Several logs as one, ordered by time."""

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
    path = _latest(events, "transcript_path")
    return Path(path) if path else None


def conversation_of(events: Path) -> str | None:
    """The conversation that the newest event in this folder names."""
    return _latest(events, "session_id")


def _latest(events: Path, field: str) -> str | None:
    """This field of the newest event that has it."""
    for file in sorted(events.glob("*.json"), reverse=True):
        try:
            return str(json.loads(file.read_bytes())["input"][field])
        except (OSError, ValueError, LookupError, TypeError):  # no hook's file, or gone meanwhile
            continue
    return None

"""The Gemini CLI's session log: one JSON line for each prompt, answer, tool call, note and error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from torch_tasks.model.task import Usage
from torch_tasks.workers.programs.events import ErrorKind, Event, EventKind, EventLog

_CANCELLED = "Request cancelled."
_ERRORS: Mapping[str, ErrorKind] = {
    "quota": "limit",
    "usage limit": "limit",
    "api key": "login",
    "unauthenticated": "login",
    "credentials": "login",
    "overloaded": "overloaded",
    "unavailable": "overloaded",
    "resource_exhausted": "overloaded",
    "too many requests": "overloaded",
    "internal": "overloaded",
}
"""What the words of an error mean; the first that is found decides."""


class Cancellations(EventLog):
    """Turns that were cancelled, which no hook tells when a permission was denied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mark(self) -> str:
        return max((str(row["timestamp"]) for row in self._rows()), default="")

    def since(self, mark: str) -> list[Event]:
        return [
            Event(EventKind.INTERRUPTED, at=datetime.fromisoformat(str(row["timestamp"])), origin="session log")
            for row in self._rows()
            if str(row["timestamp"]) > mark
        ]

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        for session in sorted(self._folder.glob("*/chats/session-*.jsonl")):
            for row in rows(session):
                if row["type"] == "info" and row.get("content") == _CANCELLED:
                    yield row


def rows(session: Path) -> list[Mapping[str, Any]]:
    """What was said, in order; a message that was written again stands in its last version, at its first place."""
    found: dict[str, Mapping[str, Any]] = {}
    try:
        lines = session.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # the CLI is writing it at this moment
            continue
        if "type" in row and "timestamp" in row:
            found[str(row.get("id"))] = row
    return list(found.values())


def outcome(session: Path, moment: str, response: str) -> Event:
    """How the turn ended that was over at this moment; ``response`` is what the hook took for the answer."""
    said = [row for row in rows(session) if str(row["timestamp"]) <= moment]
    begin = max((place for place, row in enumerate(said) if _is_prompt(row)), default=len(said))
    turn = said[begin:]
    usage = _usage(turn)
    last = next((row for row in reversed(turn) if row["type"] in ("error", "gemini") or _is_cancelled(row)), None)
    if last is None:
        return Event(EventKind.STOPPED, text=response.strip(), usage=usage)
    if _is_cancelled(last):
        return Event(EventKind.INTERRUPTED, usage=usage)
    if last["type"] == "error":
        text = str(last["content"])
        return Event(EventKind.FAILED, text=text, error=_error(text), usage=usage)
    answers = [text for row in turn if row["type"] == "gemini" and (text := _text(row).strip())]
    return Event(EventKind.STOPPED, text=answers[-1] if answers else "", usage=usage)


def _is_prompt(row: Mapping[str, Any]) -> bool:
    """It is the person's, and no tool's result."""
    content = row.get("content")
    parts = content if isinstance(content, list) else []
    return row["type"] == "user" and not any("functionResponse" in part for part in parts)


def _is_cancelled(row: Mapping[str, Any]) -> bool:
    return row["type"] == "info" and row.get("content") == _CANCELLED


def _text(row: Mapping[str, Any]) -> str:
    content = row.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or ())


def _error(text: str) -> ErrorKind:
    words = text.casefold()
    return next((error for word, error in _ERRORS.items() if word in words), "other")


def _usage(turn: list[Mapping[str, Any]]) -> Usage | None:
    counts = [row["tokens"] for row in turn if row["type"] == "gemini" and row.get("tokens")]
    if not counts:
        return None
    return Usage(
        input_tokens=sum(count["input"] - count["cached"] for count in counts),
        cached_tokens=sum(count["cached"] for count in counts),
        output_tokens=sum(count["output"] + count["thoughts"] for count in counts),
    )

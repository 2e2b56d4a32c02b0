"""What OpenCode's conversation tells: its events, its answers, their cost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch_tasks.model.fields import now
from torch_tasks.model.task import Question, Usage
from torch_tasks.system.files import ring
from torch_tasks.workers.programs.events import ErrorKind, Event, EventKind, EventLog
from torch_tasks.workers.programs.opencode_server import Message, Server, ServerAway

_LAST = 4
_CHOICES = ("Allow once", "Allow always", "Reject")
_LOGIN, _LIMITED = (401, 403), (402, 429)


class Conversation(EventLog):
    """The events of one agent's conversation. Only its end is looked at: it tells how the last turn went."""

    def __init__(self, place: Callable[[], tuple[Server, str | None]]) -> None:
        self._place = place

    def mark(self) -> str:
        return now().isoformat()

    def since(self, mark: str) -> list[Event]:
        server, session = self._place()
        if session is None:
            return []
        try:
            idle = server.status(session)["type"] == "idle"  # asked first: what ends meanwhile is seen the next time
            asked = server.permissions(session)
            messages = server.messages(session, _LAST)
        except ServerAway:
            return []
        if not idle:
            return [Event(EventKind.QUESTION, question=question(asked[0]), at=now(), origin="server")] if asked else []
        event = outcome(messages[-1]) if messages else None
        begun = datetime.fromisoformat(mark) if mark else None
        return [event] if event and (begun is None or event.at >= begun) else []


class Listener(threading.Thread):
    """Rings the bell when the program tells its listeners that something has come to an end or is asked."""

    _NEWS = (b'"session.idle"', b'"session.status"', b'"permission.asked"', b'"permission.replied"')

    def __init__(self, server: Server, folder: Path) -> None:
        super().__init__(name=f"events of {folder.name}", daemon=True)
        self._server = server
        self._folder = folder

    def run(self) -> None:
        try:
            for line in self._server.news():
                if any(word in line for word in self._NEWS):
                    ring(self._folder)
        except ServerAway:
            return


def question(asked: Mapping[str, Any]) -> Question:
    """What a request for permission asks."""
    given = asked.get("metadata") or {}
    words = str(given.get("command") or given.get("filepath") or given.get("url") or ", ".join(asked["patterns"]))
    subject = f"{asked['permission']}({words})"
    return Question(text=f"It asks for the permission to use {subject}", choices=_CHOICES, subject=subject)


def outcome(message: Message) -> Event | None:
    """How the turn went that ended with this message."""
    info = message["info"]
    completed = info["time"].get("completed")
    if info["role"] != "assistant" or completed is None or info.get("summary"):
        return None
    at = datetime.fromtimestamp(completed / 1000, UTC)
    text = "\n".join(part["text"] for part in message["parts"] if part["type"] == "text" and not part.get("synthetic"))
    if error := info.get("error"):
        if error["name"] == "MessageAbortedError":
            return Event(EventKind.INTERRUPTED, text=text, at=at, origin="server")
        said = str((error.get("data") or {}).get("message") or error["name"])
        return Event(EventKind.FAILED, text=said, error=_error(error), at=at, origin="server")
    if info.get("finish") in (None, "tool-calls"):  # it was refused what it asked for, or interrupted
        return Event(EventKind.INTERRUPTED, text=text, at=at, origin="server")
    return Event(EventKind.STOPPED, text=text, at=at, origin="server")


def _error(error: Mapping[str, Any]) -> ErrorKind:
    status = (error.get("data") or {}).get("statusCode") or 0
    if error["name"] == "ProviderAuthError" or status in _LOGIN:
        return "login"
    if status in _LIMITED:
        return "limit"
    return "overloaded" if status >= 500 else "other"


def usage_since(messages: Sequence[Message], begun: datetime) -> Usage | None:
    """What the answers cost that were begun since then."""
    infos = [message["info"] for message in messages if message["info"]["role"] == "assistant"]
    costs = [info for info in infos if info["time"]["created"] / 1000 >= begun.timestamp() and "tokens" in info]
    if not costs:
        return None
    return Usage(
        input_tokens=sum(cost["tokens"]["input"] + cost["tokens"]["cache"]["write"] for cost in costs),
        cached_tokens=sum(cost["tokens"]["cache"]["read"] for cost in costs),
        output_tokens=sum(cost["tokens"]["output"] + cost["tokens"]["reasoning"] for cost in costs),
        cost_usd=sum(cost.get("cost", 0) for cost in costs),
    )

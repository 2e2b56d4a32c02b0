"""Codex's app server, as far as Torch speaks with it: real frames on a real socket, and faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from websockets.sync.server import ServerConnection, unix_serve

BEGAN_MS = 1_795_953_118_000
CONVERSATION = "conversation-1"


class HangUp(Exception):
    """The connection ends without an answer."""


@dataclass
class FakeAppServer:
    """One server with one conversation; its turns last until the test ends them."""

    folder: Path
    seen: Path | None = None
    """Where the folder is for the server itself, if it runs in a box."""
    release: str = "0.171.0"
    conversations: list[str] = field(default_factory=lambda: [CONVERSATION])
    turns: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """The methods that were called."""
    answers: dict[str, Any] = field(default_factory=dict)
    """What is answered instead, by method."""
    refuses: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    """Methods that are never answered."""
    hangs_up_before: set[str] = field(default_factory=set)
    hangs_up_after: set[str] = field(default_factory=set)
    """Methods that are done, and not answered."""

    def start(self) -> Self:
        self._connections: list[ServerConnection] = []
        self._log = self.folder / "session.jsonl"
        self._server = unix_serve(self._serve, str(self.folder / "door"))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def end(self) -> None:
        """Hang up, and listen no more; the socket's file stays, as after a kill."""
        self._server.shutdown()
        for connection in self._connections:
            connection.close()

    @property
    def prompts(self) -> list[str]:
        """The ids of all messages that it took."""
        return [item["clientId"] for turn in self.turns for item in turn["items"]]

    def end_turn(self) -> None:
        self.turns[-1]["status"] = "completed"

    def ask(self, request: Mapping[str, Any]) -> None:
        """Ask every client."""
        for connection in self._connections:
            connection.send(json.dumps(request))

    def _serve(self, connection: ServerConnection) -> None:
        self._connections.append(connection)
        for text in connection:
            message = json.loads(text)
            if "id" in message and "method" in message:
                try:
                    reply = self._reply(message["method"], message["params"])
                except HangUp:
                    return
                if reply:
                    connection.send(json.dumps({"id": message["id"], **reply}))

    def _reply(self, method: str, given: dict[str, Any]) -> dict[str, Any] | None:
        self.asked.append(method)
        if method in self.hangs_up_before:
            raise HangUp
        if method in self.refuses:
            return {"error": {"code": -32600, "message": f"no {method} today"}}
        result = self._do(method, given)
        if method in self.hangs_up_after:
            raise HangUp
        return None if method in self.silent else {"result": self.answers.get(method, result)}

    def _do(self, method: str, given: dict[str, Any]) -> Any:
        match method:
            case "initialize":
                return {"userAgent": f"codex-tui/{self.release} (Debian 12; x86_64) tmux (torch; 1)"}
            case "thread/loaded/list":
                return {"data": self.conversations, "nextCursor": None}
            case "thread/read":
                return {"thread": self._thread(given["threadId"])}
            case "turn/start":
                return self._take(given)
            case "thread/turns/list":
                return {"data": self.turns[::-1][: given["limit"]]}
            case "turn/interrupt":
                self.turns[-1]["status"] = "interrupted"
        return {}

    def _thread(self, name: str) -> dict[str, Any]:
        works = bool(self.turns) and self.turns[-1]["status"] == "inProgress"
        status = {"type": "active", "activeFlags": []} if works else {"type": "idle"}
        log = str((self.seen or self.folder) / self._log.name)
        return {"id": name, "ephemeral": False, "parentThreadId": None, "path": log, "status": status}

    def _take(self, given: dict[str, Any]) -> Any:
        self._log.touch()
        if not self.turns or self.turns[-1]["status"] != "inProgress":
            number = len(self.turns)
            self.turns.append({"id": f"turn-{number:03}", "status": "inProgress", "items": [], "error": None})
        at = BEGAN_MS + 1000 * len(self.turns)
        item = {"type": "userMessage", "clientId": given["clientUserMessageId"], "content": given["input"]}
        self.turns[-1]["items"].append({**item, "startedAtMs": at, "completedAtMs": at})
        return {"turn": {"id": self.turns[-1]["id"]}}

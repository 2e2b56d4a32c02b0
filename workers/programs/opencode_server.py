"""OpenCode's own HTTP server, which is a part of the program in the pane: prompts, permissions, and what was said."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import string
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SECONDS = 10.0
_LETTERS = string.digits + string.ascii_letters
Message = Mapping[str, Any]


class ServerAway(Exception):
    """The server does not answer, or not as it should."""


@dataclass(frozen=True)
class Server:
    """The server of one agent's program, on this machine's loopback."""

    port: int
    password: str

    @property
    def _headers(self) -> dict[str, str]:
        token = base64.b64encode(f"opencode:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}", "Content-Type": "application/json"}

    def open_session(self, title: str) -> str:
        """Begin a conversation; returns its id."""
        return str(self._call("POST", "/session", {"title": title})["id"])

    def show(self, session: str) -> None:
        """Have the pane show the conversation; a program that has just started may not hear it."""
        self._call("POST", "/tui/select-session", {"sessionID": session})

    def status(self, session: str) -> Mapping[str, Any]:
        """``type`` is ``idle``, ``busy`` or ``retry``."""
        found: Mapping[str, Any] = self._call("GET", "/session/status").get(session, {"type": "idle"})
        return found

    def messages(self, session: str, limit: int) -> list[Message]:
        """The last so many messages, oldest first."""
        found: list[Message] = self._call("GET", f"/session/{session}/message?limit={limit}")
        return found

    def has(self, session: str, message: str) -> bool:
        """The conversation holds the message."""
        return self._request("GET", f"/session/{session}/message/{message}")[0] == http.HTTPStatus.OK

    def prompt(self, session: str, message: str, text: str) -> None:
        """Give it a prompt; the same message given twice is one message."""
        parts = [{"type": "text", "text": text}]
        self._call("POST", f"/session/{session}/prompt_async", {"messageID": message, "parts": parts})

    def abort(self, session: str) -> None:
        """Interrupt what it does."""
        self._call("POST", f"/session/{session}/abort")

    def permissions(self, session: str) -> list[Mapping[str, Any]]:
        """The requests for permission that are open."""
        return [asked for asked in self._call("GET", "/permission") if asked["sessionID"] == session]

    def reply(self, permission: str, reply: str, reason: str = "") -> None:
        """Answer one: ``once``, ``always`` or ``reject``."""
        self._call(
            "POST", f"/permission/{permission}/reply", {"reply": reply, **({"message": reason} if reason else {})}
        )

    def news(self) -> Iterator[bytes]:
        """The lines of its stream of events, for as long as it lives."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request("GET", "/event", headers=self._headers)
            yield from connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise ServerAway(f"OpenCode's server at 127.0.0.1:{self.port} does not answer: {error}") from error
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        status, answer = self._request(method, path, body)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ServerAway(f"OpenCode's server answers {method} {path} with {status}: {answer[:200]!r}")
        return json.loads(answer) if answer else {}

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerAway(f"OpenCode's server at 127.0.0.1:{self.port} does not answer: {error}") from error
        finally:
            connection.close()


def new_message_id() -> str:
    """An id as OpenCode makes them: they sort by time."""
    moment = (int(time.time() * 1000) << 12 | 1) & ((1 << 48) - 1)
    return f"msg_{moment:012x}{''.join(secrets.choice(_LETTERS) for _ in range(14))}"

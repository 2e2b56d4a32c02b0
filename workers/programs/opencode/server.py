"""The HTTP server in OpenCode's program, and the events that its conversation shows."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.model.usage import TokenCounts, Usage
from torch_tasks.redaction import protect
from torch_tasks.system.files import ring
from torch_tasks.system.loops import Loop, in_background
from torch_tasks.workers.programs.conversation import KeptPrompt
from torch_tasks.workers.programs.events import ErrorKind, EventKind, EventLog, ProgramEvent
from torch_tasks.workers.programs.questions import understand_answer

_SECONDS = 10.0
_LETTERS = string.digits + string.ascii_letters
ChatMessage = Mapping[str, Any]


class ServerAway(Exception):
    """The server does not answer, or answers with an error."""


@dataclass(frozen=True)
class OpenCodeServer:
    """The server of one agent's program, on this machine's loopback."""

    port: int
    password: str

    def __post_init__(self) -> None:
        protect(self.password)

    @property
    def _headers(self) -> dict[str, str]:
        token = base64.b64encode(f"opencode:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}", "Content-Type": "application/json"}

    def open_session(self, title: str) -> str:
        """Begin a conversation and return its id."""
        return str(self._call("POST", "/session", {"title": title})["id"])

    def show(self, session: str) -> None:
        """Have the pane show the conversation; a program that has just started may ignore this."""
        self._call("POST", "/tui/select-session", {"sessionID": session})

    def status(self, session: str) -> Mapping[str, Any]:
        """``type`` is ``idle``, ``busy`` or ``retry``."""
        found: Mapping[str, Any] = self._call("GET", "/session/status").get(session, {"type": "idle"})
        return found

    def messages(self, session: str, limit: int) -> list[ChatMessage]:
        """The last messages, oldest first."""
        found: list[ChatMessage] = self._call("GET", f"/session/{session}/message?limit={limit}")
        return found

    def has(self, session: str, message: str) -> bool:
        """Whether the conversation holds the message."""
        return self._request("GET", f"/session/{session}/message/{message}")[0] == http.HTTPStatus.OK

    def prompt(self, session: str, message: str, text: str) -> None:
        """Give the program a prompt; the same message given twice is one message."""
        parts = [{"type": "text", "text": text}]
        self._call("POST", f"/session/{session}/prompt_async", {"messageID": message, "parts": parts})

    def abort(self, session: str) -> None:
        self._call("POST", f"/session/{session}/abort")

    def permissions(self, session: str) -> list[Mapping[str, Any]]:
        return [asked for asked in self._call("GET", "/permission") if asked["sessionID"] == session]

    def questions(self, session: str) -> list[Mapping[str, Any]]:
        """What the model asks the person, each request with one question or more; none in a release without them."""
        status, answer = self._request("GET", "/question")
        asked = json.loads(answer) if status == http.HTTPStatus.OK else []
        return [one for one in asked if one["sessionID"] == session]

    def answer(self, request: str, answers: Sequence[Sequence[str]]) -> None:
        """Answer a request: each of its questions with the labels of choices, or with the person's own words."""
        self._call("POST", f"/question/{request}/reply", {"answers": answers})

    def reply(self, permission: str, reply: str, reason: str = "") -> None:
        """Answer a request for permission with ``once``, ``always`` or ``reject``."""
        body = {"reply": reply, "message": reason} if reason else {"reply": reply}
        self._call("POST", f"/permission/{permission}/reply", body)

    def news(self) -> Iterator[bytes]:
        """The lines of the server's stream of events, until it ends."""
        with self._connection() as connection:
            connection.request("GET", "/event", headers=self._headers)
            yield from connection.getresponse()

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        status, answer = self._request(method, path, body)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ServerAway(f"OpenCode's server answers {method} {path} with {status}: {answer[:200]!r}")
        return json.loads(answer) if answer else {}

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        with self._connection(_SECONDS) as connection:
            connection.request(method, path, json.dumps(body) if body is not None else None, self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    @contextmanager
    def _connection(self, timeout: float | None = None) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            yield connection
        except (OSError, http.client.HTTPException) as error:
            raise ServerAway(f"OpenCode's server at 127.0.0.1:{self.port} does not answer: {error}") from error
        finally:
            connection.close()


def new_message_id() -> str:
    """An id in OpenCode's form: ids sort by time."""
    moment = (int(time.time() * 1000) << 12 | 1) & ((1 << 48) - 1)
    return f"msg_{moment:012x}{''.join(secrets.choice(_LETTERS) for _ in range(14))}"


_LAST = 4
_LASTING = (2,)
_CHOICES = ("Allow once", "Allow always", "Reject")
_LOGIN, _LIMITED = (401, 403), (402, 429)


class ConversationLog(EventLog):
    """The events of one agent's conversation; only its end is read, which shows how the last turn went."""

    def __init__(self, conversation: Callable[[], tuple[OpenCodeServer, str | None]]) -> None:
        self._conversation = conversation

    def mark(self) -> str:
        return now().isoformat()

    def since(self, mark: str) -> list[ProgramEvent]:
        server, session = self._conversation()
        if session is None:
            return []
        try:
            idle = server.status(session)["type"] == "idle"  # asked first: what ends meanwhile is seen the next time
            asked = [question(request) for request in server.permissions(session)]
            asked += [chosen_from(request) for request in server.questions(session)]
            messages = server.messages(session, _LAST)
        except ServerAway:
            return []
        if not idle:
            return [
                ProgramEvent(EventKind.QUESTION, question=asking, at=now(), origin="server") for asking in asked[:1]
            ]
        event = outcome(messages[-1]) if messages else None
        begun = datetime.fromisoformat(mark) if mark else None
        return [event] if event and (begun is None or event.at >= begun) else []


_NEWS = (b'"session.idle"', b'"session.status"', b'"permission.asked"', b'"permission.replied"', b'"question.')


def listen(server: OpenCodeServer, folder: Path) -> Loop:
    """Ring the bell when the server's stream reports that a turn ended or a permission is asked for, until it ends."""

    def pass_on() -> None:
        with suppress(ServerAway):
            for line in server.news():
                if any(word in line for word in _NEWS):
                    ring(folder)

    return in_background(f"events of {folder.name}", pass_on)


def question(asked: Mapping[str, Any]) -> Question:
    """The question in a request for permission."""
    given = asked.get("metadata") or {}
    words = str(given.get("command") or given.get("filepath") or given.get("url") or ", ".join(asked["patterns"]))
    subject = f"{asked['permission']}({words})"
    return Question(
        text=f"It asks for the permission to use {subject}", choices=_CHOICES, subject=subject, lasting=_LASTING
    )


def chosen_from(request: Mapping[str, Any]) -> Question:
    """The question in a request for an answer; several are answered together, line by line."""
    asked = request["questions"]
    if len(asked) > 1:
        return Question(text="\n".join(str(one["question"]) for one in asked) + "\n(one line of the answer for each)")
    labels = tuple(str(option["label"]) for option in asked[0]["options"])
    return Question(text=str(asked[0]["question"]), choices=labels, several=bool(asked[0].get("multiple")))


def chosen(request: Mapping[str, Any], reply: str) -> list[list[str]] | None:
    """The answers that a person's reply means: numbers or names of choices, or own words; None if some are missing."""
    asked = request["questions"]
    lines = [reply.strip()] if len(asked) == 1 else reply.strip().splitlines()
    if len(lines) != len(asked):
        return None
    answers = []
    for one, line in zip(asked, lines, strict=True):
        taken = understand_answer(line, chosen_from({"questions": [one]}), None)
        answers.append([str(one["options"][number - 1]["label"]) for number in taken.numbers] if taken else [line])
    return answers


def outcome(message: ChatMessage) -> ProgramEvent | None:
    """How the turn that ended with this message went."""
    info = message["info"]
    completed = info["time"].get("completed")
    if info["role"] != "assistant" or completed is None or info.get("summary"):
        return None
    at = datetime.fromtimestamp(completed / 1000, UTC)
    text = "\n".join(part["text"] for part in message["parts"] if part["type"] == "text" and not part.get("synthetic"))
    if error := info.get("error"):
        if error["name"] == "MessageAbortedError":
            return ProgramEvent(EventKind.INTERRUPTED, text=text, at=at, origin="server")
        reason = str((error.get("data") or {}).get("message") or error["name"])
        return ProgramEvent(EventKind.FAILED, text=reason, error=_error(error), at=at, origin="server")
    if info.get("finish") in (None, "tool-calls"):  # a permission was denied, or a person interrupted it
        return ProgramEvent(EventKind.INTERRUPTED, text=text, at=at, origin="server")
    return ProgramEvent(EventKind.STOPPED, text=text, at=at, origin="server")


def kept_in(messages: Sequence[ChatMessage], message_id: str) -> KeptPrompt | None:
    """The prompt of this id in the conversation, and the answer to it if it is complete."""
    if all(message["info"]["id"] != message_id for message in messages):
        return None
    over = outcome(messages[-1])
    return KeptPrompt(over.text if over and over.kind is EventKind.STOPPED else None)


def _error(error: Mapping[str, Any]) -> ErrorKind:
    status = (error.get("data") or {}).get("statusCode") or 0
    if error["name"] == "ProviderAuthError" or status in _LOGIN:
        return "login"
    if status in _LIMITED:
        return "limit"
    return "overloaded" if status >= 500 else "other"


def usage_since(messages: Sequence[ChatMessage], begun: datetime) -> Usage | None:
    """What the answers that began since ``begun`` cost."""
    infos = [message["info"] for message in messages if message["info"]["role"] == "assistant"]
    costs = [info for info in infos if info["time"]["created"] / 1000 >= begun.timestamp() and "tokens" in info]
    if not costs:
        return None
    return Usage.total(map(_usage, costs))


def _usage(info: Mapping[str, Any]) -> Usage:
    """What one answer used; a cost of nothing is that of a model whose price OpenCode does not know."""
    used = info["tokens"]
    tokens = TokenCounts(
        input_tokens=used["input"] + used["cache"]["write"],
        cached_tokens=used["cache"]["read"],
        output_tokens=used["output"] + used["reasoning"],
        cache_written_tokens=used["cache"]["write"],
    )
    return Usage.of(info.get("modelID"), tokens, info.get("cost") or None)

"""The fake model's HTTP side: what is asked where, and how an answer goes out step by step."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from torch_tasks.workers.certify.fake_model.book import Book, Rule
from torch_tasks.workers.certify.fake_model.chat import Chat
from torch_tasks.workers.certify.fake_model.conversation import Conversation
from torch_tasks.workers.certify.fake_model.generate_content import GenerateContent
from torch_tasks.workers.certify.fake_model.log import Log
from torch_tasks.workers.certify.fake_model.messages import Messages
from torch_tasks.workers.certify.fake_model.responses import Responses
from torch_tasks.workers.certify.fake_model.side import plain_answer, side_of
from torch_tasks.workers.certify.fake_model.steps import Await, Call, Delay, Drop, Fail, Step, Text, Tokens, from_json
from torch_tasks.workers.certify.fake_model.wire import Answer, ErrorAnswer, Wire

MODEL = "fake-model"
CONTROL = "/_control/"


class Server(ThreadingHTTPServer):
    """The fake model at 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, folder: Path) -> None:
        self.book = Book()
        self.log = Log(folder)
        super().__init__(("127.0.0.1", port), Handler)


class Gone(Exception):
    """The client closed the connection."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: Server
    wires: ClassVar[dict[str, Wire]] = {
        "/v1/messages": Messages(),
        "/v1/responses": Responses(),
        "/v1/chat/completions": Chat(),
        ":generateContent": GenerateContent(),
        ":streamGenerateContent": GenerateContent(),
    }

    def do_HEAD(self) -> None:
        self._json(200, {})

    def do_GET(self) -> None:
        if self.path.startswith(CONTROL):
            self._json(200, {"holding": self.server.book.holding(self.path.rpartition("/")[2])})
        elif "/models" in self.path:
            self._json(200, _models(self.path, anthropic="anthropic-version" in self.headers))
        else:
            self._other({})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        if self.path.startswith(CONTROL):
            self._control(body)
            return
        path = self.path.partition("?")[0]
        if path.endswith(("/count_tokens", ":countTokens")):
            self._count(path, body)
            return
        wire = next((wire for end, wire in self.wires.items() if path.endswith(end)), None)
        if wire is None:
            self._other(body)
        else:
            self._answer(wire, body)

    def do_DELETE(self) -> None:
        self.server.book.remove(int(self.path.rpartition("/")[2]))
        self._json(200, {})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """The log of its own says more."""

    def _control(self, body: dict[str, Any]) -> None:
        if self.path == f"{CONTROL}rules":
            rule = Rule(**{**body, "steps": from_json(body["steps"])})
            self._json(200, {"id": self.server.book.add(rule)})
        else:
            self.server.book.release(self.path.rpartition("/")[2])
            self._json(200, {})

    # ── side requests ────────────────────────────────────────────────────────────────────────────────────────────

    def _count(self, path: str, body: dict[str, Any]) -> None:
        wire = self.wires["/v1/messages" if path.endswith("/count_tokens") else ":generateContent"]
        asked = wire.read(path, body.get("generateContentRequest") or body)
        self._log(asked, body, side="count")
        tokens = asked.characters // 4 + 1
        self._json(200, {"input_tokens": tokens, "totalTokens": tokens})

    def _other(self, body: dict[str, Any]) -> None:
        self._log(Conversation("other", "", stream=False), body, side="other")
        self._json(404, {"error": {"message": f"the fake model has nothing at {self.path}"}})

    def _log(self, asked: Conversation, body: dict[str, Any], *, side: str | None = None, retry: bool = False) -> int:
        client = self.headers.get("user-agent", "")
        return self.server.log.request(
            asked, path=self.path, key=self._key, client=client, side=side, retry=retry, body=body
        )

    @property
    def _key(self) -> str:
        """The API key of the client, by which tests know the agent."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        query = self.path.partition("key=")[2].partition("&")[0]
        return self.headers.get("x-api-key") or self.headers.get("x-goog-api-key") or bearer or query

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, wire: Wire, body: dict[str, Any]) -> None:
        asked = wire.read(self.path, body)
        side = side_of(asked)
        retry = side is None and self.server.log.retries(asked, self._key)
        number = self._log(asked, body, side=side, retry=retry)
        steps = self._steps(asked, side, retry=retry)

        def ended(outcome: str) -> None:
            self.server.log.outcome(number, asked, self._key, side, outcome)

        try:
            Playing(self, wire, asked, ended).play(steps)
        except Gone:
            self.close_connection = True
            ended("aborted")

    def _steps(self, asked: Conversation, side: str | None, *, retry: bool) -> Sequence[Step]:
        return [Text(plain_answer(asked, side))] if side else self.server.book.turn(asked, self._key, retry=retry)

    def gone(self) -> bool:
        """The client closed its side."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def begin_stream(self) -> None:
        """Send the head of an answer whose length is not known."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("cache-control", "no-cache")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def send_chunk(self, data: bytes) -> None:
        """Send a piece of the stream; the empty one ends it."""
        try:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        except ConnectionError:
            raise Gone from None

    def cut(self) -> None:
        """Break the connection in the client's face."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def refuse(self, error: ErrorAnswer) -> None:
        """Answer with an error status."""
        self._json(error.status, error.body, error.headers)

    def _json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def whole(self, body: dict[str, Any]) -> None:
        """Answer in one piece."""
        self._json(200, body)


class Playing:
    """One answer on its way out; it calls ``ended`` with how it ends before the client can know that, and ask again."""

    def __init__(self, handler: Handler, wire: Wire, asked: Conversation, ended: Callable[[str], None]) -> None:
        self._handler = handler
        self._wire = wire
        self._asked = asked
        self._ended = ended
        self._answer: Answer = wire.answer(asked)
        self._streaming = False

    def play(self, steps: Sequence[Step]) -> None:
        """Do the steps."""
        for step in steps:
            if isinstance(step, Fail):
                self._ended("failed")
                self._fail(step)
                return
            if isinstance(step, Drop):
                self._ended("dropped")
                self._handler.cut()
                return
            self._do(step)
        if self._asked.stream:
            self._begin()
        self._ended("complete")
        if self._asked.stream:
            self._send(self._answer.finish())
            self._handler.send_chunk(b"")
        else:
            self._handler.whole(self._answer.whole())

    def _do(self, step: Step) -> None:
        if isinstance(step, Text):
            self._begin()
            for chunk in step.chunks():
                self._send(self._answer.text(chunk))
                self._pause(step.pause)
        elif isinstance(step, Call):
            self._begin()
            self._send(self._answer.call(step.name, step.input))
        elif isinstance(step, Tokens):
            self._answer.use(step.input_tokens, step.output_tokens)
        elif isinstance(step, Delay):
            self._pause(step.seconds)
        elif isinstance(step, Await):
            self._handler.server.book.hold(step.name, self._handler.gone)
            self._require_client()

    def _begin(self) -> None:
        if self._asked.stream and not self._streaming:
            self._streaming = True
            self._handler.begin_stream()
            self._send(self._answer.start())

    def _send(self, data: bytes) -> None:
        if self._streaming and data:
            self._handler.send_chunk(data)

    def _fail(self, step: Fail) -> None:
        error = self._wire.error(step, self._asked)
        if self._streaming:
            self._send(self._answer.break_off(error))
            self._handler.send_chunk(b"")
        else:
            self._handler.refuse(error)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._require_client()
            time.sleep(min(left, 0.05))

    def _require_client(self) -> None:
        if self._handler.gone():
            raise Gone


def _models(path: str, *, anthropic: bool) -> dict[str, Any]:
    if path.startswith("/v1beta"):
        methods = ["generateContent", "countTokens"]
        return {"models": [{"name": f"models/{MODEL}", "supportedGenerationMethods": methods}]}
    if anthropic:
        model = {"type": "model", "id": MODEL, "display_name": "Fake", "created_at": "2026-01-01T00:00:00Z"}
        return {"data": [model], "has_more": False, "first_id": MODEL, "last_id": MODEL}
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "fake"}]}

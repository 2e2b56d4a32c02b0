"""The fake model as those use it who say what it answers: a process, its rules and its log."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch_tasks.errors import FakeModelFailed
from torch_tasks.workers.certify.fake_model.log import OUTCOMES, REQUESTS
from torch_tasks.workers.certify.fake_model.steps import Step, Text, as_json

_START_SECONDS = 30.0


@dataclass(frozen=True)
class ModelRequest:
    """One request as the model received it."""

    id: int
    time: float
    api: str
    path: str
    model: str
    key: str
    client: str
    stream: bool
    side_request: bool
    side: str | None
    continues: bool
    retry: bool
    prompt: str
    added: list[str]
    user_texts: list[str]
    tool_results: list[str]
    body: dict[str, Any] = field(repr=False)

    @property
    def is_prompt(self) -> bool:
        """It brings words of the person's that no request before it brought."""
        return not (self.side_request or self.continues or self.retry)


class FakeLLM:
    """A running fake model, its rules and its log. The newest rule that fits a prompt answers it::

    with FakeLLM(folder) as llm:
        llm.on("write it", Call("Write", {"file_path": "/x", "content": "y"}), Text("Written."))
        llm.on("flaky", Fail("rate_limit", retry_after=1), Text("at last"))
        ...
        llm.prompts()  # ["please write it"]
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tails = {name: _Tail(folder / name) for name in (REQUESTS, OUTCOMES)}

    def start(self) -> Self:
        """Start the process; it answers when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-P", "-m", __package__, "--port", "0", "--folder", str(self.folder)]
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
        self.port = self._await_port()
        return self

    @property
    def _output(self) -> Path:
        return self.folder / "output"

    def _await_port(self) -> int:
        """The port at which it listens, once it does."""
        deadline = time.monotonic() + _START_SECONDS
        port = self.folder / "port"
        while not port.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise FakeModelFailed(f"the fake model did not start in {self.folder}: {self._output.read_text()}")
            time.sleep(0.01)
        return int(port.read_text())

    def end(self) -> None:
        """End the process; the log stays."""
        self.process.kill()
        self.process.wait(10)
        if self.process.stdin:
            self.process.stdin.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def url(self) -> str:
        """The address, for Anthropic's and Google's clients."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """The address, for OpenAI's clients."""
        return f"{self.url}/v1"

    # ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────

    def on(
        self, match: str, *steps: Step | str, regex: bool = False, key: str | None = None, times: int | None = None
    ) -> int:
        """Answer prompts that contain ``match`` with these steps (a string is a text); returns the rule's number.

        Limited to the client with this API key, and to so many prompts, if that is given.
        """
        answers = as_json([Text(step) if isinstance(step, str) else step for step in steps])
        rule = {"match": match, "steps": answers, "regex": regex, "key": key, "times": times}
        return int(self._control("POST", "rules", rule)["id"])

    def off(self, rule: int) -> None:
        """Have the rule no longer."""
        self._control("DELETE", f"rules/{rule}")

    def release(self, name: str) -> None:
        """Let everything go on that is held by this name, now and later."""
        self._control("POST", f"release/{name}")

    def holding(self, name: str) -> int:
        """How many requests are held by this name."""
        return int(self._control("GET", f"holding/{name}")["holding"])

    def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"/_control/{path}", json.dumps(body or {}))
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise FakeModelFailed(f"the fake model refused {path}: {answer.read().decode(errors='replace')}")
            answered: dict[str, Any] = json.loads(answer.read())
            return answered
        finally:
            connection.close()

    # ── log ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def requests(self, key: str | None = None) -> list[ModelRequest]:
        """All that came, oldest first; only from the client with this API key if that is given."""
        lines = self._tails[REQUESTS].lines()
        return [ModelRequest(**line) for line in lines if key in (None, line["key"])]

    def prompts(self, key: str | None = None) -> list[str]:
        """The person's prompts, exactly as the model received them, each once per submission.

        No question of the CLI's own, no tool result, no retry: a prompt that is in here twice was submitted twice.
        """
        return [request.prompt for request in self.requests(key) if request.is_prompt]

    def outcome(self, request: ModelRequest) -> str | None:
        """How it was answered: ``complete``, ``failed``, ``dropped``, ``aborted``; None while it is being answered."""
        found = (line["outcome"] for line in self._tails[OUTCOMES].lines() if line["id"] == request.id)
        return next(found, None)


class _Tail:
    """A growing file of JSON lines, each read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lines: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # its rest may come while this reads on
                self._offset += len(line)
                self._lines.append(json.loads(line))
        return self._lines

"""What the four wire formats have in common: an answer that grows by parts, and is streamed or sent whole."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch_tasks.workers.certify.fake_model.conversation import Conversation
from torch_tasks.workers.certify.fake_model.steps import Fail


@dataclass
class Said:
    """A piece of text in an answer."""

    text: str


@dataclass
class Called:
    """A tool call in an answer."""

    id: str
    name: str
    input: dict[str, Any]

    @property
    def arguments(self) -> str:
        """The input as JSON text."""
        return json.dumps(self.input)


@dataclass(frozen=True)
class ErrorAnswer:
    """A refusal as the real service words it."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class Answer(ABC):
    """One answer in the making. Each method returns the bytes to stream for what it adds."""

    def __init__(self, asked: Conversation) -> None:
        self.asked = asked
        self.id = uuid.uuid4().hex[:24]
        self.parts: list[Said | Called] = []
        self.input_tokens = asked.characters // 4 + 1
        self._output_tokens: int | None = None

    def use(self, input_tokens: int, output_tokens: int) -> None:
        """Report these numbers."""
        self.input_tokens, self._output_tokens = input_tokens, output_tokens

    @property
    def output_tokens(self) -> int:
        """What the answer came to so far."""
        if self._output_tokens is not None:
            return self._output_tokens
        return sum(len(part.text if isinstance(part, Said) else part.arguments) for part in self.parts) // 4 + 1

    @property
    def said(self) -> str:
        """All its text."""
        return "".join(part.text for part in self.parts if isinstance(part, Said))

    @property
    def calls(self) -> list[Called]:
        """All its tool calls."""
        return [part for part in self.parts if isinstance(part, Called)]

    def text(self, chunk: str) -> bytes:
        """Say more."""
        last = self.parts[-1] if self.parts else None
        opens = not isinstance(last, Said)
        if isinstance(last, Said):
            last.text += chunk
        else:
            self.parts.append(Said(chunk))
        return self._stream_text(chunk, opens)

    def call(self, name: str, arguments: dict[str, Any]) -> bytes:
        """Call a tool."""
        called = Called(uuid.uuid4().hex[:24], name, arguments)
        self.parts.append(called)
        return self._stream_call(called)

    @abstractmethod
    def start(self) -> bytes:
        """What comes before everything else."""

    @abstractmethod
    def _stream_text(self, chunk: str, opens: bool) -> bytes: ...

    @abstractmethod
    def _stream_call(self, called: Called) -> bytes: ...

    @abstractmethod
    def finish(self) -> bytes:
        """What comes last."""

    @abstractmethod
    def break_off(self, error: ErrorAnswer) -> bytes:
        """The failure as an event of the stream."""

    @abstractmethod
    def whole(self) -> dict[str, Any]:
        """The answer to a request that wants no stream."""


class Wire(ABC):
    """One wire format."""

    api: ClassVar[str]
    answer: ClassVar[type[Answer]]

    @abstractmethod
    def read(self, path: str, body: dict[str, Any]) -> Conversation:
        """What the request says."""

    @abstractmethod
    def error(self, fail: Fail, asked: Conversation) -> ErrorAnswer:
        """The failure as this service sends it."""


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()

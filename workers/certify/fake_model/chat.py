"""OpenAI's Chat Completions: what OpenCode and aider speak."""

from __future__ import annotations

import time
from typing import Any

from torch_tasks.workers.certify.fake_model.conversation import Conversation, Item
from torch_tasks.workers.certify.fake_model.openai_errors import openai_error
from torch_tasks.workers.certify.fake_model.steps import Fail
from torch_tasks.workers.certify.fake_model.wire import Answer, Called, ErrorAnswer, Wire, event

_AIDERS_REMINDER = "\n\nTo suggest changes to a file you MUST return "
"""aider puts its rules behind the user's own words, in the same text."""

_OPENCODES = (
    "What did we do so far?",
    "Continue if you have next steps, or stop and ask for clarification",
    "<system-reminder>",
)
"""What OpenCode itself says as the user begins so."""


class ChatAnswer(Answer):
    """A completion, delta by delta."""

    def start(self) -> bytes:
        return self._delta({"role": "assistant", "content": ""})

    def _stream_text(self, chunk: str, opens: bool) -> bytes:
        return self._delta({"content": chunk})

    def _stream_call(self, called: Called) -> bytes:
        return self._delta({"tool_calls": [{"index": len(self.calls) - 1, **_call(called)}]})

    def finish(self) -> bytes:
        return self._delta({}, self._reason) + event({**self._frame, "choices": [], "usage": self._usage}) + _DONE

    def break_off(self, error: ErrorAnswer) -> bytes:
        return event(error.body)

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.said}
        if self.calls:
            message["tool_calls"] = [_call(called) for called in self.calls]
        choice = {"index": 0, "message": message, "finish_reason": self._reason}
        return {**self._frame, "object": "chat.completion", "choices": [choice], "usage": self._usage}

    @property
    def _reason(self) -> str:
        return "tool_calls" if self.calls else "stop"

    @property
    def _usage(self) -> dict[str, int]:
        used = {"prompt_tokens": self.input_tokens, "completion_tokens": self.output_tokens}
        return {**used, "total_tokens": sum(used.values())}

    @property
    def _frame(self) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self.asked.model,
        }

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return event({**self._frame, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


_DONE = b"data: [DONE]\n\n"


class Chat(Wire):
    """``/v1/chat/completions``."""

    api = "openai-chat"
    answer = ChatAnswer

    def read(self, path: str, body: dict[str, Any]) -> Conversation:
        asked = Conversation(self.api, body.get("model", ""), bool(body.get("stream")))
        asked.tools = [tool.get("function", {}).get("name", "") for tool in body.get("tools") or ()]
        asked.schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        for message in body.get("messages", ()):
            if message["role"] == "system":
                asked.system += "".join(_texts(message))
            else:
                asked.items.extend(_items(message))
        return asked

    def error(self, fail: Fail, asked: Conversation) -> ErrorAnswer:
        return openai_error(fail, param="messages")


def _call(called: Called) -> dict[str, Any]:
    function = {"name": called.name, "arguments": called.arguments}
    return {"id": f"call_{called.id}", "type": "function", "function": function}


def _texts(message: dict[str, Any]) -> list[str]:
    content = message.get("content") or []
    return [content] if isinstance(content, str) else [part.get("text", "") for part in content]


def _items(message: dict[str, Any]) -> list[Item]:
    role, texts = message["role"], _texts(message)
    if role == "tool":
        return [Item("result", text) for text in texts]
    if role == "assistant":
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        said = [Item("assistant", text) for text in texts if text]
        return said + [Item("call", f"{call['name']} {call['arguments']}") for call in calls]
    return [item for text in texts for item in _user(text)]


def _user(text: str) -> list[Item]:
    if text.startswith(_OPENCODES):
        return [Item("added", text)]
    words, mark, reminder = text.partition(_AIDERS_REMINDER)
    return [Item("user", words), *([Item("added", mark + reminder)] if mark else [])]

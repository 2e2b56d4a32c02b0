"""Anthropic's Messages: what Claude Code speaks."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

from torch_tasks.workers.certify.fake_model.conversation import Conversation, Item
from torch_tasks.workers.certify.fake_model.steps import Fail
from torch_tasks.workers.certify.fake_model.wire import Answer, Called, ErrorAnswer, Said, Wire, event

_ADDED = re.compile(
    r"<(system-reminder|local-command-\w+|command-\w+|bash-\w+)>.*</\1>\s*|\[Request interrupted by user.*\]"
    r"|This session is being continued from a previous conversation.*",
    re.DOTALL,
)
"""What Claude Code itself puts into a user's message: always a whole block."""


class MessagesAnswer(Answer):
    """A message, block by block."""

    def start(self) -> bytes:
        return self._event("message_start", message=self._message([], None))

    def _stream_text(self, chunk: str, opens: bool) -> bytes:
        opening = b""
        if opens:
            opening = self._close() + self._open({"type": "text", "text": ""})
        return opening + self._delta({"type": "text_delta", "text": chunk})

    def _stream_call(self, called: Called) -> bytes:
        block = {"type": "tool_use", "id": f"toolu_{called.id}", "name": called.name, "input": {}}
        return (
            self._close()
            + self._open(block)
            + self._delta({"type": "input_json_delta", "partial_json": called.arguments})
        )

    def finish(self) -> bytes:
        last = self._event("content_block_stop", index=len(self.parts) - 1) if self.parts else b""
        delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
        last += self._event("message_delta", delta=delta, usage=self._usage)
        return last + self._event("message_stop")

    def break_off(self, error: ErrorAnswer) -> bytes:
        return event(error.body, "error")

    def whole(self) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "text", "text": part.text}
            if isinstance(part, Said)
            else {"type": "tool_use", "id": f"toolu_{part.id}", "name": part.name, "input": part.input}
            for part in self.parts
        ]
        return self._message(content, self._stop_reason)

    @property
    def _stop_reason(self) -> str:
        return "tool_use" if self.calls else "end_turn"

    @property
    def _usage(self) -> dict[str, int]:
        return {
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": self.output_tokens,
        }

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": f"msg_{self.id}",
            "type": "message",
            "role": "assistant",
            "model": self.asked.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": self._usage,
        }

    def _close(self) -> bytes:
        """Ends the block before the newest."""
        return self._event("content_block_stop", index=len(self.parts) - 2) if len(self.parts) > 1 else b""

    def _open(self, block: dict[str, Any]) -> bytes:
        return self._event("content_block_start", index=len(self.parts) - 1, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._event("content_block_delta", index=len(self.parts) - 1, delta=delta)

    def _event(self, name: str, **data: Any) -> bytes:
        return event({"type": name, **data}, name)


class Messages(Wire):
    """``/v1/messages``."""

    api = "anthropic"
    answer = MessagesAnswer

    def read(self, path: str, body: dict[str, Any]) -> Conversation:
        asked = Conversation(self.api, body.get("model", ""), bool(body.get("stream")), _joined(body.get("system")))
        asked.tools = [tool.get("name", "") for tool in body.get("tools") or ()]
        asked.schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
        for message in body.get("messages", ()):
            for block in _blocks(message["content"]):
                asked.items.append(_item(message["role"], block))
        return asked

    def error(self, fail: Fail, asked: Conversation) -> ErrorAnswer:
        status, kind, message = _ERRORS[fail.error]
        body = {"type": "error", "error": {"type": kind, "message": fail.message or message}, "request_id": "req_fake"}
        headers = {"request-id": "req_fake", "anthropic-organization-id": "fake-organization"}
        if fail.error == "rate_limit":
            headers |= {"retry-after": str(fail.retry_after), **_rate_headers(fail)}
        if fail.error == "usage_limit":
            headers |= _unified_headers(fail)
        headers["x-should-retry"] = "true" if status in (429, 500, 529) else "false"
        return ErrorAnswer(status, body, headers)


_ERRORS = {
    "rate_limit": (
        429,
        "rate_limit_error",
        "This request would exceed the rate limit for your organization of 50,000 input tokens per minute. For details,"
        " refer to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage."
        " Please reduce the prompt length or the maximum tokens requested, or try again later.",
    ),
    "usage_limit": (
        429,
        "rate_limit_error",
        "This request would exceed your account's rate limit. Please try again later.",
    ),
    "quota": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or"
        " purchase credits.",
    ),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "unauthorized": (401, "authentication_error", "invalid x-api-key"),
    "too_long": (400, "invalid_request_error", "prompt is too long: 213455 tokens > 200000 maximum"),
    "server_error": (500, "api_error", "Internal server error"),
}


def _rate_headers(fail: Fail) -> dict[str, str]:
    reset = datetime.fromtimestamp(time.time() + fail.retry_after, UTC).isoformat(timespec="seconds")
    limits = {"requests": ("50", "49"), "tokens": ("60000", "0"), "input-tokens": ("50000", "0")}
    headers = {}
    for name, (limit, remaining) in (limits | {"output-tokens": ("10000", "10000")}).items():
        headers[f"anthropic-ratelimit-{name}-limit"] = limit
        headers[f"anthropic-ratelimit-{name}-remaining"] = remaining
        headers[f"anthropic-ratelimit-{name}-reset"] = reset.replace("+00:00", "Z")
    return headers


def _unified_headers(fail: Fail) -> dict[str, str]:
    reset = str(int(time.time()) + fail.resets_in)
    return {
        "retry-after": str(fail.resets_in),
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": reset,
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
        "anthropic-ratelimit-unified-5h-status": "rejected",
        "anthropic-ratelimit-unified-5h-reset": reset,
        "anthropic-ratelimit-unified-5h-utilization": "1.0",
        "anthropic-ratelimit-unified-overage-status": "rejected",
        "anthropic-ratelimit-unified-overage-disabled-reason": "org_level_disabled",
    }


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _joined(content: Any) -> str:
    return "\n".join(block.get("text", "") for block in _blocks(content or ""))


def _item(role: str, block: dict[str, Any]) -> Item:
    kind = block.get("type")
    if kind == "tool_result":
        return Item("result", _joined(block.get("content")))
    if kind == "tool_use":
        return Item("call", f"{block['name']} {json.dumps(block['input'])}")
    text = block.get("text", "")
    if role == "assistant":
        return Item("assistant", text)
    if role != "user":
        return Item("added", text)
    return Item("added" if kind != "text" or _ADDED.fullmatch(text) else "user", text)

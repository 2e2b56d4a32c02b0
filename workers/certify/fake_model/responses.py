"""OpenAI's Responses: what Codex speaks."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from torch_tasks.workers.certify.fake_model.conversation import Conversation, Item
from torch_tasks.workers.certify.fake_model.openai_errors import openai_error
from torch_tasks.workers.certify.fake_model.steps import Fail
from torch_tasks.workers.certify.fake_model.wire import Answer, Called, ErrorAnswer, Said, Wire, event

_ADDED = re.compile(
    r"<(environment_context|user_instructions|turn_aborted|user_shell_command|subagent_notification|skill)>.*</\1>\s*"
    r"|# AGENTS\.md instructions.*|Another language model started to solve this problem.*",
    re.DOTALL,
)
"""What Codex itself says as the user: always a whole item."""


class ResponsesAnswer(Answer):
    """A response, output item by output item."""

    def __init__(self, asked: Conversation) -> None:
        super().__init__(asked)
        self._sequence = 0

    def start(self) -> bytes:
        response = self._response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _stream_text(self, chunk: str, opens: bool) -> bytes:
        opening = b""
        if opens:
            item = {**self._item(self.parts[-1], "in_progress"), "content": []}
            opening = self._close(len(self.parts) - 2) + self._event(
                "response.output_item.added", output_index=len(self.parts) - 1, item=item
            )
            opening += self._event(
                "response.content_part.added",
                **self._place,
                part={"type": "output_text", "text": "", "annotations": []},
            )
        return opening + self._event("response.output_text.delta", **self._place, delta=chunk)

    def _stream_call(self, called: Called) -> bytes:
        index = len(self.parts) - 1
        item = self._item(called, "in_progress")
        events = self._close(index - 1) + self._event(
            "response.output_item.added", output_index=index, item={**item, "arguments": ""}
        )
        events += self._event(
            "response.function_call_arguments.delta", item_id=item["id"], output_index=index, delta=called.arguments
        )
        events += self._event(
            "response.function_call_arguments.done", item_id=item["id"], output_index=index, arguments=called.arguments
        )
        return events + self._done(index)

    def finish(self) -> bytes:
        closing = self._close(len(self.parts) - 1)
        return closing + self._event("response.completed", response=self._response("completed"))

    def break_off(self, error: ErrorAnswer) -> bytes:
        sent = error.body["error"]
        failure = {"code": sent.get("code") or sent["type"], "message": sent["message"]}
        return self._event("response.failed", response={**self._response("failed"), "error": failure})

    def whole(self) -> dict[str, Any]:
        return self._response("completed")

    def _close(self, index: int) -> bytes:
        """Ends the text at this place; a call is whole at once."""
        if index < 0 or not isinstance(part := self.parts[index], Said):
            return b""
        place = {"item_id": self._id(part), "output_index": index, "content_index": 0}
        whole = {"type": "output_text", "text": part.text, "annotations": []}
        events = self._event("response.output_text.done", **place, text=part.text)
        return events + self._event("response.content_part.done", **place, part=whole) + self._done(index)

    def _done(self, index: int) -> bytes:
        item = self._item(self.parts[index], "completed")
        return self._event("response.output_item.done", output_index=index, item=item)

    @property
    def _place(self) -> dict[str, Any]:
        """Where a text that is being said stands."""
        return {"item_id": self._id(self.parts[-1]), "output_index": len(self.parts) - 1, "content_index": 0}

    def _id(self, part: Said | Called) -> str:
        return f"fc_{part.id}" if isinstance(part, Called) else f"msg_{self.id}{self.parts.index(part)}"

    def _item(self, part: Said | Called, status: str) -> dict[str, Any]:
        if isinstance(part, Called):
            namespace, _, name = part.name.rpartition(".")
            return {
                "id": self._id(part),
                "type": "function_call",
                "status": status,
                "call_id": f"call_{part.id}",
                "name": name,
                "arguments": part.arguments,
                **({"namespace": namespace} if namespace else {}),
            }
        content = [{"type": "output_text", "text": part.text, "annotations": []}]
        return {"id": self._id(part), "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str) -> dict[str, Any]:
        ended = status == "completed"
        usage = {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + self.output_tokens,
        }
        return {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "model": self.asked.model,
            "output": [self._item(part, "completed") for part in self.parts] if ended else [],
            "usage": usage if ended else None,
            "error": None,
            "incomplete_details": None,
        }

    def _event(self, name: str, **data: Any) -> bytes:
        self._sequence += 1
        return event({"type": name, "sequence_number": self._sequence - 1, **data}, name)


class Responses(Wire):
    """``/v1/responses``."""

    api = "openai-responses"
    answer = ResponsesAnswer

    def read(self, path: str, body: dict[str, Any]) -> Conversation:
        asked = Conversation(self.api, body.get("model", ""), bool(body.get("stream")), body.get("instructions") or "")
        asked.tools = [tool.get("name") or tool.get("type", "") for tool in body.get("tools") or ()]
        asked.schema = ((body.get("text") or {}).get("format") or {}).get("schema")
        said = body.get("input") or []
        if isinstance(said, str):
            asked.items.append(Item("user", said))
        else:
            for item in said:
                asked.items.extend(_items(item))
        return asked

    def error(self, fail: Fail, asked: Conversation) -> ErrorAnswer:
        return openai_error(fail, param="input")


def _items(item: dict[str, Any]) -> list[Item]:
    kind = item.get("type", "message")
    if kind.endswith("_call"):
        given = item.get("arguments") or item.get("input") or item.get("action")
        return [Item("call", f"{item.get('name', kind)} {given if isinstance(given, str) else json.dumps(given)}")]
    if kind.endswith("_output"):
        output = item.get("output")
        return [Item("result", output if isinstance(output, str) else json.dumps(output))]
    if kind != "message":
        return []
    content = item.get("content") or []
    texts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
    return [_said(item.get("role", ""), text) for text in texts]


def _said(role: str, text: str) -> Item:
    if role == "assistant":
        return Item("assistant", text)
    return Item("user" if role == "user" and not _ADDED.fullmatch(text) else "added", text)

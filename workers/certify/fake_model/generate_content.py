"""Google's generateContent: what the Gemini CLI speaks."""

from __future__ import annotations

import json
import re
from typing import Any

from torch_tasks.workers.certify.fake_model.conversation import Conversation, Item
from torch_tasks.workers.certify.fake_model.steps import Fail
from torch_tasks.workers.certify.fake_model.wire import Answer, Called, ErrorAnswer, Said, Wire, event

_ADDED = re.compile(
    r"<(session_context|system-reminder|hook_context)>.*</\1>\s*"
    r"|This is the Gemini CLI\. We are setting up the context for our chat\..*"
    r"|\n?--- Content from referenced files ---.*|\n?Content from @.*|\n?--- End of content ---.*",
    re.DOTALL,
)
"""What the Gemini CLI itself puts into a user's turn: always a whole part."""


class GeminiAnswer(Answer):
    """A candidate, part by part."""

    def start(self) -> bytes:
        return b""

    def _stream_text(self, chunk: str, opens: bool) -> bytes:
        return event(self._response([{"text": chunk}], None))

    def _stream_call(self, called: Called) -> bytes:
        return event(self._response([_call(called)], None))

    def finish(self) -> bytes:
        return event(self._response([{"text": ""}], "STOP"))

    def break_off(self, error: ErrorAnswer) -> bytes:
        return event(error.body)

    def whole(self) -> dict[str, Any]:
        parts = [{"text": part.text} if isinstance(part, Said) else _call(part) for part in self.parts]
        return self._response(parts, "STOP")

    def _response(self, parts: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if reason:
            candidate["finishReason"] = reason
        usage = {"promptTokenCount": self.input_tokens, "candidatesTokenCount": self.output_tokens}
        return {
            "candidates": [candidate],
            "usageMetadata": {**usage, "totalTokenCount": sum(usage.values())},
            "modelVersion": self.asked.model,
            "responseId": self.id,
        }


class GenerateContent(Wire):
    """``/v1beta/models/<model>:generateContent`` and ``:streamGenerateContent``."""

    api = "gemini"
    answer = GeminiAnswer

    def read(self, path: str, body: dict[str, Any]) -> Conversation:
        model, _, method = path.partition("?")[0].rpartition("/")[2].partition(":")
        system = "".join(part.get("text", "") for part in (body.get("systemInstruction") or {}).get("parts", ()))
        asked = Conversation(self.api, model, method == "streamGenerateContent", system)
        declared = [tool.get("functionDeclarations") or () for tool in body.get("tools") or ()]
        asked.tools = [function["name"] for functions in declared for function in functions]
        config = body.get("generationConfig") or {}
        asked.schema = config.get("responseJsonSchema") or config.get("responseSchema")
        for content in body.get("contents", ()):
            asked.items.extend(_item(content.get("role", "user"), part) for part in content.get("parts", ()))
        return asked

    def error(self, fail: Fail, asked: Conversation) -> ErrorAnswer:
        code, status, message = _ERRORS[fail.error]
        error: dict[str, Any] = {"code": code, "message": fail.message or message, "status": status}
        wait = f"{fail.resets_in if fail.error == 'usage_limit' else fail.retry_after}s"
        if code == 429:
            error["message"] = fail.message or message.format(model=asked.model, wait=wait)
            error["details"] = _quota_details(fail, asked.model, wait)
        if fail.error == "unauthorized":
            reason = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
            reason["@type"] = "type.googleapis.com/google.rpc.ErrorInfo"
            error["details"] = [{**reason, "metadata": {"service": "generativelanguage.googleapis.com"}}]
        return ErrorAnswer(code, {"error": error}, {"server-timing": "gfet4t7; dur=12"})


_EXCEEDED = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error,"
    " head to: https://ai.google.dev/gemini-api/docs/rate-limits. \n* Quota exceeded for metric:"
    " generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 20, model: {model}\n"
    "Please retry in {wait}."
)
_ERRORS = {
    "rate_limit": (429, "RESOURCE_EXHAUSTED", _EXCEEDED),
    "usage_limit": (429, "RESOURCE_EXHAUSTED", _EXCEEDED),
    "quota": (429, "RESOURCE_EXHAUSTED", _EXCEEDED),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "unauthorized": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "too_long": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "server_error": (
        500,
        "INTERNAL",
        "An internal error has occurred. Please retry or report in"
        " https://developers.generativeai.google/guide/troubleshooting",
    ),
}


def _quota_details(fail: Fail, model: str, wait: str) -> list[dict[str, Any]]:
    per = "Minute" if fail.error == "rate_limit" else "Day"
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": f"GenerateRequestsPer{per}PerProjectPerModel-FreeTier",
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": "20",
    }
    link = {"description": "Learn more about Gemini API quotas"}
    return [
        {
            "@type": "type.googleapis.com/google.rpc.Help",
            "links": [{**link, "url": "https://ai.google.dev/gemini-api/docs/rate-limits"}],
        },
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait},
    ]


def _call(called: Called) -> dict[str, Any]:
    return {"functionCall": {"id": called.id, "name": called.name, "args": called.input}}


def _item(role: str, part: dict[str, Any]) -> Item:
    if "functionResponse" in part:
        return Item("result", json.dumps(part["functionResponse"].get("response")))
    if "functionCall" in part:
        return Item("call", f"{part['functionCall']['name']} {json.dumps(part['functionCall'].get('args'))}")
    text = part.get("text", "")
    if role == "model":
        return Item("assistant", text)
    return Item("added" if "text" not in part or _ADDED.fullmatch(text) else "user", text)

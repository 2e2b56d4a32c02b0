"""What an agent's program sends over the Agent Client Protocol: drawn for people, and its errors understood."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from acp import RequestError
from acp.schema import (
    AgentMessageChunk,
    AgentPlanUpdate,
    AgentThoughtChunk,
    ContentToolCallContent,
    FileEditToolCallContent,
    PromptResponse,
    TextContentBlock,
    ToolCallProgress,
    ToolCallStart,
    ToolCallUpdate,
    UserMessageChunk,
)
from pydantic import ValidationError

from torch_tasks.model.fields import now
from torch_tasks.model.usage import Usage
from torch_tasks.workers.programs.acp.view import PaneView, diff_rows, shortened
from torch_tasks.workers.programs.events import ErrorKind, EventKind, ProgramEvent
from torch_tasks.workers.programs.reset_time import reset_time

AUTH_REQUIRED = -32000
_LIMIT = re.compile(r"usage limit|rate.?limit|quota|billing|insufficient.{0,20}(credit|funds|quota)|\b429\b", re.I)
_OVERLOADED = re.compile(r"overloaded|unavailable|\b(500|502|503|529)\b", re.I)
_LOGIN = re.compile(r"authenticat|unauthorized|api key|log ?in\b|\b40[13]\b", re.I)
_PLAN_SIGNS = {"pending": "☐", "in_progress": "▸", "completed": "☑"}
_STATUS_SIGNS = {"completed": "✓", "failed": "✗"}

AnyUpdate = Any
"""One of the protocol's updates; those that are not drawn need no name."""


@dataclass
class ToolRun:
    """A call of a tool, as far as the program has reported it."""

    title: str = ""
    kind: str = ""
    given: Any = None
    places: list[str] = field(default_factory=list)

    def learn(self, update: ToolCallStart | ToolCallUpdate) -> None:
        self.title = update.title or self.title
        self.kind = update.kind or self.kind
        self.given = update.raw_input if update.raw_input is not None else self.given
        self.places = [place.path for place in update.locations or ()] or self.places

    @property
    def name(self) -> str:
        return self.title or self.subject

    @property
    def subject(self) -> str:
        """What it does, as patterns match it: ``execute(git push)``."""
        return f"{self.kind or 'other'}({self._words})"

    @property
    def _words(self) -> str:
        given = self.given if isinstance(self.given, dict) else {}
        for name in ("command", "cmd", "file_path", "filePath", "path", "url"):
            if words := given.get(name):
                return words if isinstance(words, str) else " ".join(map(str, words))
        return self.places[0] if self.places and self.kind != "execute" else self.title


class StreamDrawing:
    """Draws what happens in a session."""

    def __init__(self, view: PaneView) -> None:
        self._view = view
        self._tools: dict[str, ToolRun] = {}

    def draw(self, update: AnyUpdate, *, prompts: bool) -> None:
        """Draw an update; with ``prompts``, also those that repeat a prompt."""
        match update:
            case (
                AgentMessageChunk(content=TextContentBlock(text=text))
                | AgentThoughtChunk(content=TextContentBlock(text=text))
            ):
                self._view.flow(text)
            case UserMessageChunk(content=TextContentBlock(text=text)) if prompts:
                self._view.show(shortened(text), "> ", "  ")
            case ToolCallStart() | ToolCallProgress():
                self._draw_tool(update)
            case AgentPlanUpdate(entries=entries):
                self._view.show("\n".join(f"{_PLAN_SIGNS[entry.status]} {entry.content}" for entry in entries), "  ")

    def is_new(self, update: AnyUpdate) -> bool:
        """Whether the update begins the call of a tool; a request for permission may be the first of it."""
        return isinstance(update, ToolCallStart | ToolCallUpdate) and update.tool_call_id not in self._tools

    def learn(self, update: ToolCallStart | ToolCallUpdate) -> ToolRun:
        """What is known of this call, with what the update adds."""
        tool = self._tools.setdefault(update.tool_call_id, ToolRun())
        tool.learn(update)
        return tool

    def _draw_tool(self, update: ToolCallStart | ToolCallProgress) -> None:
        tool = self.learn(update)
        if isinstance(update, ToolCallStart):
            self._view.show(tool.name, "● ")
        self.draw_content(update)
        if update.status in _STATUS_SIGNS:
            self._view.show(tool.name, f"{_STATUS_SIGNS[update.status]} ")

    def draw_content(self, update: ToolCallStart | ToolCallUpdate) -> None:
        """Draw what a call of a tool has produced or will change."""
        for content in update.content or ():
            match content:
                case ContentToolCallContent(content=TextContentBlock(text=text)):
                    self._view.show(shortened(text), "  ")
                case FileEditToolCallContent(path=path, old_text=old, new_text=new):
                    self._view.show(diff_rows(path, old, new), "  ")


def failed_turn(error: RequestError | ValidationError) -> ProgramEvent:
    """The end of a turn whose prompt the program answered with an error, or with what is no answer."""
    words = words_of(error)
    kind: ErrorKind = "other"
    if isinstance(error, RequestError):
        text = f"{error.code} {words}"
        patterns: dict[ErrorKind, re.Pattern[str]] = {"limit": _LIMIT, "overloaded": _OVERLOADED, "login": _LOGIN}
        kind = next((one for one, pattern in patterns.items() if pattern.search(text)), "other")
        kind = "login" if error.code == AUTH_REQUIRED else kind
    until = reset_time(words, now()) if kind == "limit" else None
    return ProgramEvent(EventKind.FAILED, text=words, error=kind, until=until, origin="acp error")


def usage_of(response: PromptResponse, cost: float | None) -> Usage | None:
    """What a turn used, by the protocol's own field or the one of the Gemini CLI."""
    if used := response.usage:
        return Usage(
            input_tokens=used.input_tokens + (used.cached_write_tokens or 0),
            cached_tokens=used.cached_read_tokens or 0,
            output_tokens=used.output_tokens,
            cache_written_tokens=used.cached_write_tokens or 0,
            cost_usd=cost,
        )
    with contextlib.suppress(KeyError, TypeError, ValueError):
        counts = (response.field_meta or {})["quota"]["token_count"]
        return Usage(input_tokens=counts["input_tokens"], output_tokens=counts["output_tokens"], cost_usd=cost)
    return Usage(cost_usd=cost) if cost else None


def words_of(error: RequestError | ValidationError) -> str:
    """What an error says, with its details."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
    details = error.data
    if isinstance(details, dict):
        details = details.get("details") or details.get("message") or json.dumps(details)
    return f"{error}: {details}" if details else str(error)

"""What a model reads of a reply: the fields that a tool shows, as visible JSON of a bearable length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch_tasks.mcp.tools import Tool
from torch_tasks.visible_text import visible

FOUND = "found"
"""Under which name a list is shown."""
LONGEST_TEXT = 20_000
"""The characters of one text that a tool shows."""


def shown(tool: Tool, reply: Any) -> dict[str, Any]:
    """The part of a reply, as JSON, that the tool shows; what is empty is left out.

    It is an object in any case: Gemini refuses others.
    """
    if isinstance(reply, list):
        return {FOUND: [_part(tool, one) for one in reply]}
    return _part(tool, reply)


def written(value: Any) -> str:
    """The value for a model to read."""
    return json.dumps(_visible(value), ensure_ascii=False)


def _part(tool: Tool, reply: Any) -> dict[str, Any]:
    if reply is None:
        return {} if tool.waits else {"done": True}
    if not isinstance(reply, Mapping):
        return {tool.shows[0]: reply}
    found = {path.rpartition(".")[2]: _at(reply, path) for path in tool.shows} if tool.shows else reply
    return {name: value for name, value in found.items() if value not in (None, "", [], {}, False)}


def _at(reply: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(reply, Mapping):
            return None
        reply = reply.get(name)
    return reply


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        more = len(value) - LONGEST_TEXT
        return visible(value) if more <= 0 else f"{visible(value[:LONGEST_TEXT])} … ({more:,} more characters)"
    if isinstance(value, list):
        return [_visible(one) for one in value]
    if isinstance(value, Mapping):
        return {visible(name): _visible(one) for name, one in value.items()}
    return value

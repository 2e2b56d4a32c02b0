"""What the CLIs ask a model on their own, without a word of the person's: answered plainly, and never by a rule."""

from __future__ import annotations

import json
from typing import Any

from torch_tasks.workers.certify.fake_model.conversation import Conversation

_MARKS = {
    "title": (
        "Generate a concise, sentence-case title",
        "Generate a concise, single-line task title",
        "You are a title generator",
    ),
    "compaction": (
        "Your task is to create a detailed summary of the conversation so far",
        "You are performing a CONTEXT CHECKPOINT COMPACTION",
        "You are a specialized system component responsible for distilling chat history",
        "Create a new anchored summary from the conversation history",
        "Briefly summarize this partial conversation",
    ),
    "routing": ("Task Routing AI",),
    "commit": ("expert software engineer that generates concise, one-line Git commit messages",),
}


def side_of(asked: Conversation) -> str | None:
    """What kind of question of the CLI's own this is; None for one of the person's."""
    # The CLI may add a reminder to its own question, too.
    last = [*asked.items[-1:], *[item for item in asked.items if item.who != "added"][-1:]]
    said = "\n".join([asked.system, *(item.text for item in last)])
    for side, marks in _MARKS.items():
        if any(mark in said for mark in marks):
            return side
    if "flash-lite" in asked.model:
        return "routing"
    return "structured" if asked.schema else None


def plain_answer(asked: Conversation, side: str) -> str:
    """An answer of the form that the CLI wants."""
    if asked.schema:
        return json.dumps(_instance(asked.schema))
    return f"A fake {side}"


def _instance(schema: dict[str, Any]) -> Any:
    """The plainest value that the schema allows."""
    kind = schema.get("type", "object")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if schema.get("enum"):
        return schema["enum"][0]
    if kind == "object":
        return {name: _instance(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return []
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return False if kind == "boolean" else "A fake text"

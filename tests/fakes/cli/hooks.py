"""Hooks as Claude Code has them: a settings file names shell commands, each gets its event as JSON on its input."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from fakes.cli.children import Child


@dataclass(frozen=True)
class _Hook:
    event: str
    matcher: str
    command: str

    def wants(self, event: str, subject: str) -> bool:
        return event == self.event and (self.matcher in ("", "*") or bool(re.fullmatch(self.matcher, subject)))


class Hooks:
    """The hooks of one settings file: ``{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"…"}]}]}}``."""

    def __init__(self, path: str | None) -> None:
        self._hooks = _read(path) if path else []

    def start(self, event: str, facts: dict[str, Any]) -> list[Child]:
        """Run what belongs to the event."""
        subject = next((facts[name] for name in ("tool_name", "notification_type", "source") if name in facts), "")
        wanted = [hook for hook in self._hooks if hook.wants(event, subject)]
        return [Child(hook.command, json.dumps({**facts, "hook_event_name": event})) for hook in wanted]


def _read(path: str) -> list[_Hook]:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        events = json.load(file).get("hooks", {})
    return [
        _Hook(event, group.get("matcher", ""), hook["command"])
        for event, groups in events.items()
        for group in groups
        for hook in group["hooks"]
        if hook.get("type", "command") == "command"
    ]

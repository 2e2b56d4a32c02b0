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
    """The hooks of a settings file, or of its text: ``{"hooks":{"Stop":[{"hooks":[{"type":"command",…}]}]}}``."""

    def __init__(self, settings: str | None) -> None:
        self._hooks = _read(settings) if settings else []

    def start(self, event: str, facts: dict[str, Any]) -> list[Child]:
        """Run what belongs to the event."""
        subject = next((facts[name] for name in ("tool_name", "notification_type", "source") if name in facts), "")
        wanted = [hook for hook in self._hooks if hook.wants(event, subject)]
        return [Child(hook.command, json.dumps({**facts, "hook_event_name": event})) for hook in wanted]


def _read(settings: str) -> list[_Hook]:
    if not settings.startswith("{"):
        with open(settings, encoding="utf-8") as file:  # noqa: PTH123
            settings = file.read()
    events = json.loads(settings).get("hooks", {})
    return [
        _Hook(event, group.get("matcher", ""), hook["command"])
        for event, groups in events.items()
        for group in groups
        for hook in group["hooks"]
        if hook.get("type", "command") == "command"
    ]

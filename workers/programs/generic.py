"""Any coding agent's program, described by its TOML alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.system.files import write_private
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.events import EventKind, ProgramEvent
from torch_tasks.workers.programs.reset_time import reset_time


class Generic(CodingAgent):
    """A program whose screen, and hooks if it has any, are read as the TOML says.

    ``{hooks}``, anywhere in the command, is a settings file with the hooks in Claude Code's form, ``{folder}`` the
    agent's folder.
    """

    @property
    def reports_turns(self) -> bool:  # type: ignore[override]  # the TOML says it
        kinds = {hook.event for hook in self.config.hooks.values()}
        return {EventKind.ACCEPTED, EventKind.STOPPED} <= kinds

    @property
    def _settings(self) -> Path:
        return self.own / "hooks.json"

    def prepare(self) -> None:
        hooks = {
            name: [{"hooks": [{"type": "command", "command": self.report_command(name)}]}] for name in self.config.hooks
        }
        write_private(self._settings, json.dumps({"hooks": hooks}, indent=1) + "\n")

    def command(self) -> list[str]:
        hooks, folder = str(self._settings), str(self.own)
        return [word.replace("{hooks}", hooks).replace("{folder}", folder) for word in self.config.command]

    def translate(self, name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
        hook = self.config.hooks.get(name)
        if hook is None:
            return None
        text = str(given.get(hook.text, ""))
        match hook.event:
            case EventKind.QUESTION:
                question = _question(str(given.get(hook.tool, "")), given.get(hook.input))
                return ProgramEvent(EventKind.QUESTION, question=question)
            case EventKind.FAILED:
                error = self.config.errors.get(str(given.get(hook.error, "")), "other")
                until = reset_time(text, now()) if error == "limit" else None
                return ProgramEvent(EventKind.FAILED, text=text, error=error, until=until)
        return ProgramEvent(hook.event, text=text)


def _question(tool: str, given: Any) -> Question:
    words = next((value for value in given.values() if isinstance(value, str)), "") if isinstance(given, dict) else ""
    if not words:  # the program asks for no permission, but for something that only the screen shows
        return Question(text="The program asks for an answer.")
    return Question(text=f"Allow {tool}({words})?", subject=f"{tool}({words})")

"""Any coding agent's program, by its TOML alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.events import EventKind, ProgramEvent
from torch_tasks.workers.programs.reset_time import reset_time


class Generic(CodingAgent):
    """A program whose screen is read by the rules, and its hooks, if it has them, as the TOML says.

    ``{hooks}`` in the command is a settings file with the hooks, in Claude Code's form; ``{folder}`` is the agent's own
    folder.
    """

    @property
    def reports_turns(self) -> bool:  # type: ignore[override]  # the TOML says it
        kinds = {hook.event for hook in self.config.hooks.values()}
        return {EventKind.ACCEPTED, EventKind.STOPPED} <= kinds

    @property
    def _settings(self) -> Path:
        return self.folder / "hooks.json"

    def prepare(self) -> None:
        hooks = {
            name: [{"hooks": [{"type": "command", "command": self.report_command(name)}]}] for name in self.config.hooks
        }
        self._settings.write_text(json.dumps({"hooks": hooks}, indent=1) + "\n")

    def command(self) -> list[str]:
        places = {"{hooks}": str(self._settings), "{folder}": str(self.folder)}
        return [places.get(word, word) for word in self.config.command]

    def translate(self, name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
        hook = self.config.hooks.get(name)
        if hook is None:
            return None
        kind = hook.event
        text = str(given.get(hook.text, ""))
        if kind is EventKind.QUESTION:
            return ProgramEvent(kind, question=_question(str(given.get(hook.tool, "")), given.get(hook.input)))
        if kind is EventKind.FAILED:
            error = self.config.errors.get(str(given.get(hook.error, "")), "other")
            return ProgramEvent(
                kind, text=text, error=error, until=reset_time(text, now()) if error == "limit" else None
            )
        return ProgramEvent(kind, text=text)


def _question(tool: str, given: Any) -> Question:
    words = next((value for value in given.values() if isinstance(value, str)), "") if isinstance(given, dict) else ""
    if not words:  # no permission: the program asks for something that the screen shows
        return Question(text="The program asks for an answer.")
    return Question(text=f"Allow {tool}({words})?", subject=f"{tool}({words})")

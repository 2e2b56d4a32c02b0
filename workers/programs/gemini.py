"""The Gemini CLI: its hooks report prompts, questions and ends; its session log has the answers.

The answer in the hook's event is not used, as it repeats pieces of what was streamed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question
from torch_tasks.model.usage import TokenCounts, Usage
from torch_tasks.system.files import write_private
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs import torch_tools
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.config import overlaid, read_settings
from torch_tasks.workers.programs.conversation import KeptPrompt
from torch_tasks.workers.programs.events import ErrorKind, EventKind, EventLog, ProgramEvent
from torch_tasks.workers.programs.prompt import Prompt, belongs_to
from torch_tasks.workers.programs.submission import Submission
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane

_HOOKS = ("SessionStart", "SessionEnd", "BeforeAgent", "AfterAgent", "AfterTool", "Notification")
_HOOK_MILLISECONDS = 5000
#: The agent may always report to Torch.
_POLICY = """\
[[rule]]
toolName = "run_shell_command"
commandPrefix = ["torch-tasks done", "torch-tasks fail", "torch-tasks progress"]
decision = "allow"
priority = 900
"""
#: What belongs to this agent in its home; everything else there is linked to the user's.
_OWN = frozenset({"settings.json", "TORCH.md", "tmp", "history", "projects.json"})
#: A reference to a file, which the CLI replaces by the file's content.
_REFERENCE = re.compile(r'(?<!\\)@((?:"[^"]*"|\\.|[^ \t\n\r,;!?()\[\]{}."\\]|\.(?![ \t\n\r]|$))+)')


class Gemini(CodingAgent):
    briefed_by_flag = True
    reports_turns = True

    def environment(self) -> Mapping[str, str]:
        return {**self.config.environment, "GEMINI_CLI_HOME": str(self.home)}

    @property
    def home(self) -> Path:
        """The folder that the CLI uses as the user's home."""
        return self.own / "home"

    @property
    def _policy(self) -> Path:
        return self.own / "policy.toml"

    def prepare(self) -> None:
        own = self.home / ".gemini"
        own.mkdir(parents=True, exist_ok=True)
        (self.folder / "runs").mkdir(exist_ok=True)
        user = Path(self._variable("GEMINI_CLI_HOME") or Path.home())
        _link(user / ".gemini", own)
        write_private(self._policy, _POLICY)
        write_private(own / "TORCH.md", self.briefing)
        settings = self._settings(read_settings(user / ".gemini" / "settings.json"))
        write_private(own / "settings.json", json.dumps(settings, indent=1) + "\n")
        self._launched = self.log.mark()

    def _settings(self, user: Mapping[str, Any]) -> dict[str, Any]:
        """The user's settings with the TOML's over them, and Torch's hooks beside the user's."""
        settings = overlaid(user, self.config.settings)
        hooks = dict(settings.get("hooks", {})) if user.get("hooksConfig", {}).get("enabled", True) else {}
        for name in _HOOKS:
            hook = {"type": "command", "name": "torch", "command": self.report_command(name)}
            entry = {"matcher": "*", "hooks": [{**hook, "timeout": _HOOK_MILLISECONDS}]}
            hooks[name] = [*hooks.get(name, []), entry]
        names = user.get("context", {}).get("fileName", "GEMINI.md")
        memory = [*([names] if isinstance(names, str) else names), "TORCH.md"]
        # The CLI reads the user's folder of policies only if the settings name none.
        policies = user.get("policyPaths") or [str(path) for path in [self.home / ".gemini/policies"] if path.is_dir()]
        folders = [*user.get("context", {}).get("includeDirectories", ()), str(self.folder / "runs")]
        own = {
            "hooksConfig": {"enabled": True},
            "context": {"fileName": memory, "includeDirectories": folders},
            "policyPaths": [*policies, str(self._policy)],
        }
        settings = overlaid(settings, own)
        if self.config.tools:
            settings = overlaid(settings, _tools(self.own, settings.get("mcp", {}).get("allowed")))
        if not settings.get("security", {}).get("auth", {}).get("selectedType") and self._variable("GEMINI_API_KEY"):
            settings = overlaid(settings, {"security": {"auth": {"selectedType": "gemini-api-key"}}})
        return {**settings, "hooks": hooks}

    def _variable(self, name: str) -> str:
        """A variable as the program sees it."""
        return self.config.environment.get(name, os.environ.get(name, ""))

    def is_kept(self, conversation: str) -> bool:
        return super().is_kept(conversation) and bool(self._session_logs(conversation))

    def _session_logs(self, conversation: str) -> list[Path]:
        """The logs of this session, the latest first; their names have the first part of its id.

        A program that goes on with a session of an earlier minute begins one more log, and then writes to the old one.
        """
        logs = self.home.glob(f".gemini/tmp/*/chats/session-*{conversation[:8]}.jsonl")
        return sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)

    def kept_prompt(self, submission: Submission, run: PromptFolder) -> KeptPrompt | None:
        return kept_in(self._session_logs(self.conversation or ""), submission.tag)

    def get_ready(self, pane: AgentPane) -> bool:
        # The CLI draws its composer before it takes pastes.
        is_drawn = super().get_ready(pane)
        return is_drawn and any(event.kind is EventKind.STARTED for event in self.log.since(self._launched))

    def disarm(self, words: str) -> Prompt:
        found: list[str] = []

        def escaped(match: re.Match[str]) -> str:
            if not (self.workdir / match[1].strip('"')).exists():
                return match[0]
            found.append(match[0])
            return f"\\{match[0]}"

        safe = _REFERENCE.sub(escaped, words)
        note = f"wrote \\ before {', '.join(found)}: the CLI would put the file's content in its place"
        return Prompt(safe, (note,) if found else ())

    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        view = self.read_screen(pane)
        if not force and view and view.by_screen.state is AgentState.LIMITED:
            self.answer_dialog(pane, view)  # it takes all keys until it is answered
        else:
            super().interrupt(pane, force=force)

    @cached_property
    def own_log(self) -> EventLog:
        return CancellationLog(self.home / ".gemini" / "tmp")

    def translate(self, name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
        match name:
            case "SessionStart":
                return ProgramEvent(EventKind.STARTED)
            case "SessionEnd" if given.get("reason") != "clear":
                return ProgramEvent(EventKind.ENDED)
            case "BeforeAgent":
                return ProgramEvent(EventKind.ACCEPTED, text=str(given["prompt"]))
            case "AfterTool":
                return ProgramEvent(EventKind.RESOLVED)
            case "Notification" if given.get("notification_type") == "ToolPermission":
                question = _question(str(given.get("message")), given.get("details"))
                return ProgramEvent(EventKind.QUESTION, question=question)
            case "AfterAgent":
                return outcome(
                    self.outside(Path(given["transcript_path"])), given["timestamp"], str(given["prompt_response"])
                )
        return None

    def usage(self, run: AttemptFolder, turn: Turn) -> Usage | None:
        return turn.over.usage if turn.over else None


def _tools(folder: Path, allowed: Sequence[str] | None) -> dict[str, Any]:
    """Torch's tools, which the agent may call without asking; ``allowed`` are the servers that a user allows alone."""
    program, *words = torch_tools.server_command(folder)
    server = {"command": program, "args": words, "timeout": torch_tools.TOOL_SECONDS * 1000, "trust": True}
    mine = {"mcp": {"allowed": [*allowed, torch_tools.NAME]}} if allowed is not None else {}
    return {"mcpServers": {torch_tools.NAME: server}, **mine}


def _link(user: Path, own: Path) -> None:
    """Link everything of the user's into the agent's folder, except what belongs to the agent."""
    for entry in user.iterdir() if user.is_dir() else ():
        link = own / entry.name
        if entry.name not in _OWN and not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(entry)


_TOOLS = {"exec": ("Shell", "command"), "edit": ("Edit", "filePath"), "info": ("Fetch", "prompt")}
"""For each kind of permission request, the tool's name here, and the field with what it is used for."""


def _question(message: str, details: Any) -> Question:
    given: Mapping[str, Any] = details if isinstance(details, dict) else {}
    kind = str(given.get("type", ""))
    tool, field = _TOOLS.get(kind, (str(given.get("toolName") or kind or "Tool"), "title"))
    words = str(given.get(field, ""))
    return Question(text=f"{message}: {words}" if words else message, subject=f"{tool}({words})")


_CANCELLED = "Request cancelled."
_ERRORS: Mapping[str, ErrorKind] = {
    "quota": "limit",
    "usage limit": "limit",
    "api key": "login",
    "unauthenticated": "login",
    "credentials": "login",
    "overloaded": "overloaded",
    "unavailable": "overloaded",
    "resource_exhausted": "overloaded",
    "too many requests": "overloaded",
    "internal": "overloaded",
}
"""The kind of an error by the first of these words that is found in its text."""


class CancellationLog(EventLog):
    """Turns that were cancelled because a permission was denied, which no hook reports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mark(self) -> str:
        return max((str(row["timestamp"]) for row in self._rows()), default="")

    def since(self, mark: str) -> list[ProgramEvent]:
        return [
            ProgramEvent(EventKind.INTERRUPTED, at=datetime.fromisoformat(str(row["timestamp"])), origin="session log")
            for row in self._rows()
            if str(row["timestamp"]) > mark
        ]

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        for session in sorted(self._folder.glob("*/chats/session-*.jsonl")):
            for row in rows(session):
                if row["type"] == "info" and row.get("content") == _CANCELLED:
                    yield row


def rows(session: Path) -> list[Mapping[str, Any]]:
    """The session's rows; a row that was written again appears in its last version, at its first place."""
    found: dict[str, Mapping[str, Any]] = {}
    try:
        lines = session.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # the CLI is writing it
            continue
        if "type" in row and "timestamp" in row:
            found[str(row.get("id"))] = row
    return list(found.values())


def outcome(session: Path, moment: str, response: str) -> ProgramEvent:
    """How the turn before this moment ended; ``response``, the hook's answer, is used if the log has none."""
    past = [row for row in rows(session) if str(row["timestamp"]) <= moment]
    begin = max((place for place, row in enumerate(past) if _is_prompt(row)), default=len(past))
    turn = past[begin:]
    usage = _usage(turn)
    last = next((row for row in reversed(turn) if row["type"] in ("error", "gemini") or _is_cancelled(row)), None)
    if last is None:
        return ProgramEvent(EventKind.STOPPED, text=response.strip(), usage=usage)
    if _is_cancelled(last):
        return ProgramEvent(EventKind.INTERRUPTED, usage=usage)
    if last["type"] == "error":
        text = str(last["content"])
        return ProgramEvent(EventKind.FAILED, text=text, error=_error(text), usage=usage)
    answers = [text for row in turn if row["type"] == "gemini" and (text := _text(row).strip())]
    return ProgramEvent(EventKind.STOPPED, text=answers[-1] if answers else "", usage=usage)


def kept_in(logs: Iterable[Path], tag: str) -> KeptPrompt | None:
    """The prompt with this tag in the first of the session's logs that has it, and the answer if it is complete."""
    for session in map(rows, logs):
        if any(_is_prompt(row) and belongs_to(_text(row), tag) for row in session):
            last = session[-1]
            is_answer = last["type"] == "gemini" and not last.get("toolCalls")
            return KeptPrompt(_text(last).strip() if is_answer else None)
    return None


def _is_prompt(row: Mapping[str, Any]) -> bool:
    """Whether the row is a person's prompt and no tool's result."""
    content = row.get("content")
    parts = content if isinstance(content, list) else []
    return row["type"] == "user" and not any("functionResponse" in part for part in parts)


def _is_cancelled(row: Mapping[str, Any]) -> bool:
    return row["type"] == "info" and row.get("content") == _CANCELLED


def _text(row: Mapping[str, Any]) -> str:
    content = row.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or ())


def _error(text: str) -> ErrorKind:
    words = text.casefold()
    return next((error for word, error in _ERRORS.items() if word in words), "other")


def _usage(turn: list[Mapping[str, Any]]) -> Usage | None:
    answers = [row for row in turn if row["type"] == "gemini" and row.get("tokens")]
    return Usage.total(Usage.of(row.get("model"), _tokens(row["tokens"])) for row in answers) if answers else None


def _tokens(count: Mapping[str, int]) -> TokenCounts:
    return TokenCounts(
        input_tokens=count["input"] - count["cached"],
        cached_tokens=count["cached"],
        output_tokens=count["output"] + count["thoughts"],
    )

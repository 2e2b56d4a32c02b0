"""Claude Code: its hooks report prompts and answers, its session file whether it is busy.

``--settings`` lays the agent's hooks and permissions over the person's own settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.model.usage import TokenCounts, Usage
from torch_tasks.system.files import write_private
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs import torch_tools
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.conversation import KeptPrompt
from torch_tasks.workers.programs.events import ErrorKind, EventKind, ProgramEvent, transcript_of
from torch_tasks.workers.programs.kind import StateReading
from torch_tasks.workers.programs.pane_program import leader_of, numbers_in_box
from torch_tasks.workers.programs.prompt import belongs_to
from torch_tasks.workers.programs.reset_time import reset_time
from torch_tasks.workers.programs.submission import Submission
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook

#: The hooks that report only that something happened.
_PLAIN_HOOKS = {
    "ElicitationResult": EventKind.RESOLVED,
    "PreCompact": EventKind.COMPACTING,
    "PostCompact": EventKind.COMPACTED,
}
_HOOKS = (
    "SessionStart",
    "UserPromptSubmit",
    "PermissionRequest",
    "Elicitation",
    "Stop",
    "StopFailure",
    "SessionEnd",
    *_PLAIN_HOOKS,
)
_HOOK_SECONDS = 5
#: How long the transcript may lag behind the hooks, and in how many of its last bytes the turn's last line is.
_LINE_SECONDS, _TAIL_BYTES = 1.0, 16384
_ERRORS: Mapping[str, ErrorKind] = {
    "rate_limit": "limit",
    "billing_error": "limit",
    "authentication_failed": "login",
    "server_error": "overloaded",
    "unknown": "overloaded",  # mostly no answer at all
}
_READ_TRIES = 5
_STATES = {"busy": AgentState.WORKING, "idle": AgentState.READY, "waiting": AgentState.WAITING}
#: Why a session's start or end is reported when only the conversation changes.
_SAME_SESSION = ("clear", "resume", "compact")


class Claude(CodingAgent):
    briefed_by_flag = True
    reports_turns = True

    def command(self) -> list[str]:
        tools = ["--mcp-config", str(self._tools)] if self.config.tools else []
        own = ["--settings", str(self._settings), "--append-system-prompt-file", str(self.briefing_file)]
        return [*super().command(), *tools, *own]

    def prepare(self) -> None:
        hooks = {
            name: [{"hooks": [{"type": "command", "command": self.report_command(name), "timeout": _HOOK_SECONDS}]}]
            for name in _HOOKS
        }
        # The agent may always report to Torch, and read what Torch gives it.
        reports = [f"Bash(torch-tasks {command}:*)" for command in ("done", "fail", "progress")]
        tools = [f"mcp__{torch_tools.NAME}"] if self.config.tools else []
        allow = [*reports, *tools, f"Read(/{self.folder / 'runs'}/**)"]
        write_private(self._settings, json.dumps({"hooks": hooks, "permissions": {"allow": allow}}, indent=1) + "\n")
        if self.config.tools:
            program, *words = torch_tools.server_command(self.own)
            server = {"type": "stdio", "command": program, "args": words, "timeout": torch_tools.TOOL_SECONDS * 1000}
            write_private(self._tools, json.dumps({"mcpServers": {torch_tools.NAME: server}}, indent=1) + "\n")
        write_private(self.briefing_file, self.briefing)

    @property
    def _settings(self) -> Path:
        return self.own / "claude.json"

    @property
    def _tools(self) -> Path:
        return self.own / "claude-tools.json"

    def translate(self, name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
        match name:
            case "SessionStart" if given.get("source") not in _SAME_SESSION:
                return ProgramEvent(EventKind.STARTED)
            case "UserPromptSubmit":
                return ProgramEvent(EventKind.ACCEPTED, text=str(given["prompt"]))
            case "PermissionRequest":
                parts = questions(str(given["tool_name"]), given["tool_input"])
                return ProgramEvent(EventKind.QUESTION, question=parts[0], parts=parts)
            case "Elicitation":
                link = f" {given['url']}" if given.get("url") else ""
                asked = f"The MCP server {given['mcp_server_name']} asks: {given['message']}{link}"
                return ProgramEvent(EventKind.QUESTION, question=Question(text=asked))
            case "Stop":
                return ProgramEvent(EventKind.STOPPED, text=str(given.get("last_assistant_message") or ""))
            case "StopFailure":
                return _failure(str(given.get("error")), str(given.get("last_assistant_message") or ""))
            case "SessionEnd" if given.get("reason") not in _SAME_SESSION:
                return ProgramEvent(EventKind.ENDED, text=str(given.get("reason")))
        return ProgramEvent(_PLAIN_HOOKS[name]) if name in _PLAIN_HOOKS else None

    def status(self, pane: AgentPane) -> StateReading | None:
        look = pane.look()
        session = self._session(look) if look else None
        state = _STATES.get(str(session.get("status"))) if session else None
        if session is None or state is None:
            return None
        waits_for = str(session.get("waitingFor", ""))
        if waits_for == "dialog open":  # the screen shows which one
            return None
        return StateReading(state, "session file", " ".join(filter(None, (str(session["status"]), waits_for))))

    def _session(self, look: PaneLook) -> dict[str, Any] | None:
        """The session file of the program, or of one of its children: the command may be a script that starts it."""
        try:
            numbers = list(numbers_in_box(leader_of(look)))
        except psutil.NoSuchProcess:
            return None
        for number in numbers:
            file = self._home / "sessions" / f"{number}.json"
            for _ in range(_READ_TRIES):
                try:
                    return dict(json.loads(file.read_bytes()))
                except FileNotFoundError:
                    break
                except ValueError:  # the program is writing it
                    time.sleep(0.005)
        return None

    @property
    def _home(self) -> Path:
        variables = {**os.environ, **self.config.environment}
        return self.outside(Path(variables.get("CLAUDE_CONFIG_DIR") or Path(variables.get("HOME", "~")) / ".claude"))

    def is_kept(self, conversation: str) -> bool:
        return super().is_kept(conversation) and self._transcript(conversation) is not None

    def _transcript(self, conversation: str) -> Path | None:
        """Where a conversation is kept that something was said in."""
        found = (self._home / "projects").glob(f"*/{conversation}.jsonl")
        return next((path for path in found if any(_said(path))), None)

    def kept_prompt(self, submission: Submission, run: PromptFolder) -> KeptPrompt | None:
        path = self._transcript(self.conversation or "")
        return kept_in(path, submission.tag) if path else None

    def usage(self, run: AttemptFolder, turn: Turn) -> Usage | None:
        named = transcript_of(self.events)
        if named is None:
            return None
        transcript = self.outside(named)
        if turn.over:
            _await_end(transcript, turn.over.at)
        begun = datetime.fromtimestamp(run.prompt.stat().st_mtime).astimezone()
        answers: dict[str, Usage] = {}
        for path in (transcript, *transcript.with_suffix("").glob("subagents/*.jsonl")):
            answers.update(_costs(path, begun))
        return Usage.total(answers.values())


def _failure(error: str, message: str) -> ProgramEvent:
    kind = _ERRORS.get(error, "other")
    _, resets, when = message.partition("resets ")
    until = reset_time(when, now()) if kind == "limit" and resets else None
    return ProgramEvent(EventKind.FAILED, text=message, error=kind, until=until)


def _await_end(transcript: Path, over: datetime) -> None:
    """Wait for the turn's last line, which the program writes after the hooks have run."""
    deadline = time.monotonic() + _LINE_SECONDS
    while time.monotonic() < deadline and not any(_ends_turn(line, over) for line in _tail(transcript)):
        time.sleep(0.02)


def _ends_turn(line: bytes, over: datetime) -> bool:
    with contextlib.suppress(ValueError, LookupError):
        row = json.loads(line)
        return row.get("subtype") == "turn_duration" and datetime.fromisoformat(row["timestamp"]) >= over
    return False


def _tail(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def _costs(transcript: Path, begun: datetime) -> Iterator[tuple[str, Usage]]:
    """What each answer of a model since ``begun`` cost; one answer may have several lines."""
    try:
        lines = transcript.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in reversed(lines):
        try:
            row = json.loads(line)
            if row.get("type") != "assistant":
                continue
            if datetime.fromisoformat(row["timestamp"]) < begun:
                return
            message = row["message"]
            yield message["id"], Usage.of(message.get("model"), _tokens_of(message["usage"]))
        except (ValueError, LookupError, AttributeError):  # another kind of line, or half a line
            continue


def kept_in(transcript: Path, tag: str) -> KeptPrompt | None:
    """The prompt with this tag in the transcript, and its answer if that is the last that stands there."""
    rows = list(_said(transcript))
    prompts = [place for place, row in enumerate(rows) if row["type"] == "user" and belongs_to(_text(row), tag)]
    if not prompts:
        return None
    last = rows[-1]
    if last["type"] == "user" or last["message"].get("stop_reason") != "end_turn":
        return KeptPrompt()
    ids = last["message"].get("id")
    said = [row for row in rows[prompts[-1] :] if row["type"] == "assistant" and row["message"].get("id") == ids]
    return KeptPrompt("".join(map(_text, said)))


def _said(transcript: Path) -> Iterator[dict[str, Any]]:
    """What the person, the model and its tools said, without its helpers."""
    for line in transcript.read_bytes().splitlines():
        with contextlib.suppress(ValueError, AttributeError):  # half a line, when the program was killed
            row = json.loads(line)
            if row.get("type") in ("user", "assistant") and not row.get("isSidechain"):
                yield row


def _text(row: Mapping[str, Any]) -> str:
    content = row["message"].get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or () if part.get("type") == "text")


def _tokens_of(used: Mapping[str, Any]) -> TokenCounts:
    written = int(used.get("cache_creation_input_tokens") or 0)
    return TokenCounts(
        input_tokens=int(used.get("input_tokens") or 0) + written,
        cached_tokens=int(used.get("cache_read_input_tokens") or 0),
        output_tokens=int(used.get("output_tokens") or 0),
        cache_written_tokens=written,
    )


PLAN = "ExitPlanMode()"
"""The subject of the question whether the program may carry out its plan."""
_TEXT_CHOICE = "Type something."


def questions(tool: str, given: Mapping[str, Any]) -> tuple[Question, ...]:
    """What the program's request to use this tool asks, part by part."""
    if tool == "AskUserQuestion":
        return tuple(_question(asked) for asked in given["questions"])
    if tool == "ExitPlanMode":
        return (Question(text=f"It has a plan and asks to go on:\n{given.get('plan', '')}", subject=PLAN),)
    words = next((given[name] for name in ("command", "file_path", "url", "query") if given.get(name)), "")
    subject = f"{tool}({words})"
    return (Question(text=f"It asks for the permission to use {subject}", subject=subject),)


def _question(asked: Mapping[str, Any]) -> Question:
    options = asked["options"]
    choices = [str(option["label"]) for option in options]
    if not any(option.get("preview") for option in options):  # beside previews there is no field for a text
        choices.append(_TEXT_CHOICE)
    return Question(text=str(asked["question"]), choices=tuple(choices), several=bool(asked.get("multiSelect")))

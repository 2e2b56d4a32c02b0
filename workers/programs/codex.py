"""Codex: its hooks report prompts, answers, questions and interruptions; only its session log has errors.

All settings are given on the command line, over the person's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from torch_tasks.model.fields import now
from torch_tasks.model.task import Question, Usage
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.conversation import KeptPrompt
from torch_tasks.workers.programs.events import ErrorKind, EventKind, EventLog, ProgramEvent, transcript_of
from torch_tasks.workers.programs.prompt import belongs_to, briefing
from torch_tasks.workers.programs.reset_time import reset_time
from torch_tasks.workers.programs.submission import Submission

#: The hooks that report only that something happened.
_PLAIN_HOOKS = {
    "SessionStart": EventKind.STARTED,
    "PostToolUse": EventKind.RESOLVED,
    "Interrupt": EventKind.INTERRUPTED,
    "PreCompact": EventKind.COMPACTING,
    "PostCompact": EventKind.COMPACTED,
    "SessionEnd": EventKind.ENDED,
}
_HOOKS = ("UserPromptSubmit", "PermissionRequest", "Stop", *_PLAIN_HOOKS)
_HOOK_SECONDS = 3
"""Codex allows some of its hooks no more."""
_FLAGS = "/<session-flags>/config.toml"
"""Codex's name for the place of hooks that came with the command line."""
_OVERLOADED = ("server_overloaded", "internal_server_error", "http_connection_failed", "response_stream")


class Codex(CodingAgent):
    """Codex without its daemon, so that each agent has its own settings."""

    briefed_by_flag = True
    reports_turns = True

    def is_kept(self, conversation: str) -> bool:
        return super().is_kept(conversation) and self._session_log(conversation) is not None

    @property
    def _home(self) -> Path:
        variables = {**os.environ, **self.config.environment}
        return Path(variables.get("CODEX_HOME") or Path(variables.get("HOME", "~")) / ".codex")

    def _session_log(self, conversation: str) -> Path | None:
        return next((self._home / "sessions").glob(f"*/*/*/rollout-*{conversation}.jsonl"), None)

    def kept_prompt(self, submission: Submission, run: AttemptFolder) -> KeptPrompt | None:
        path = self._session_log(self.conversation or "")
        return kept_in(path, submission.tag) if path else None

    def command(self) -> list[str]:
        settings = [
            *_dotted(self.config.settings),
            ("developer_instructions", _toml(briefing(self.spec))),
            *self._trust(),
            *self._hooks(),
        ]
        return [*super().command(), *(word for name, value in settings for word in ("-c", f"{name}={value}"))]

    def _trust(self) -> Iterator[tuple[str, str]]:
        """The trust in the agent's own folder, unless its person has decided that before."""
        decided: Mapping[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):  # the program itself says what is wrong there
            decided = tomllib.loads((self._home / "config.toml").read_text()).get("projects", {})
        folder = str(self.workdir.resolve())
        if folder not in decided:
            yield "projects", f'{{{_toml(folder)}={{trust_level="trusted"}}}}'

    def _hooks(self) -> Iterator[tuple[str, str]]:
        """The hooks, and the trust that a person would give them, and them alone, in the program's dialog."""
        trusted = []
        for name in _HOOKS:
            command = self.report_command(name)
            hook = f'{{type="command",command={_toml(command)},timeout={_HOOK_SECONDS}}}'
            yield f"hooks.{name}", f"[{{hooks=[{hook}]}}]"
            label = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            trusted.append(f'"{_FLAGS}:{label}:0:0"={{trusted_hash="{_hook_hash(label, command)}"}}')
        yield "hooks.state", f"{{{','.join(trusted)}}}"

    def translate(self, name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
        match name:
            case "UserPromptSubmit":
                return ProgramEvent(EventKind.ACCEPTED, text=str(given["prompt"]))
            case "PermissionRequest":
                question = _question(str(given["tool_name"]), given["tool_input"])
                return ProgramEvent(EventKind.QUESTION, question=question)
            case "Stop":
                return ProgramEvent(EventKind.STOPPED, text=str(given.get("last_assistant_message") or ""))
        return ProgramEvent(_PLAIN_HOOKS[name]) if name in _PLAIN_HOOKS else None

    @property
    def own_log(self) -> EventLog:
        return SessionLog(self.events)


class SessionLog(EventLog):
    """The events that no hook reports: errors, and what each request cost."""

    def __init__(self, events: Path) -> None:
        self._events = events
        self._seen = 0
        self._path: Path | None = None
        self._offset = 0
        self._found: list[ProgramEvent] = []

    def mark(self) -> str:
        events = self._all()
        return events[-1].at.isoformat() if events else ""

    def since(self, mark: str) -> list[ProgramEvent]:
        return [event for event in self._all() if not mark or event.at > datetime.fromisoformat(mark)]

    def _find(self) -> None:
        """Find the log that the hooks' events name; only a new event can name another."""
        try:
            changed = self._events.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed != self._seen:
            self._seen = changed
            path = transcript_of(self._events)
            if path != self._path:
                self._path, self._offset, self._found = path, 0, []

    def _all(self) -> list[ProgramEvent]:
        self._find()
        if self._path is None:
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    if event := _row(line):
                        self._found.append(event)
        except FileNotFoundError:  # it comes with the first prompt
            pass
        return self._found


def kept_in(session_log: Path, tag: str) -> KeptPrompt | None:
    """The prompt with this tag in the session log, and the answer to it if that is complete."""
    kept: KeptPrompt | None = None
    for line in session_log.read_bytes().splitlines():
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):  # half a line, another release's
            match json.loads(line)["payload"]:
                case {"type": "message", "role": "user", "content": parts}:
                    if kept or any(belongs_to(part.get("text", ""), tag) for part in parts):
                        kept = KeptPrompt()
                case {"type": "task_complete", "last_agent_message": answer, **more} if kept and not more.get("error"):
                    kept = KeptPrompt(answer)
    return kept


def _row(line: bytes) -> ProgramEvent | None:
    try:
        row = json.loads(line)
        at = datetime.fromisoformat(row["timestamp"])
        payload = row["payload"]
        if row["type"] == "token_usage_record":
            return ProgramEvent(EventKind.USAGE, usage=_usage(payload["usage"]), at=at, origin="session log")
        if payload.get("type") == "task_complete" and payload.get("error"):
            return _failure(payload["error"], at)
    except (ValueError, LookupError, TypeError, AttributeError):  # a line as another release writes it
        pass
    return None


def _usage(tokens: Mapping[str, Any]) -> Usage:
    cached = int(tokens.get("cached_input_tokens") or 0)
    return Usage(
        input_tokens=int(tokens["input_tokens"]) - cached,
        cached_tokens=cached,
        output_tokens=int(tokens["output_tokens"]),
    )


def _failure(error: Mapping[str, Any], at: datetime) -> ProgramEvent:
    message, kind = str(error.get("message", "")), _error_kind(json.dumps(error.get("codex_error_info")))
    _, again, when = message.partition("try again at ")
    until = reset_time(when, now()) if kind == "limit" and again else None
    return ProgramEvent(EventKind.FAILED, text=message, error=kind, until=until, at=at, origin="session log")


def _error_kind(info: str) -> ErrorKind:
    if "usage_limit_exceeded" in info or "429" in info:
        return "limit"
    if "401" in info or "403" in info:
        return "login"
    return "overloaded" if any(word in info for word in _OVERLOADED) else "other"


def _question(tool: str, given: Mapping[str, Any]) -> Question:
    words = next((value for value in given.values() if isinstance(value, str)), "")
    subject = f"{tool}({words})"
    why = given.get("description")
    return Question(text=f"It asks for the permission to use {subject}" + (f": {why}" if why else ""), subject=subject)


def _dotted(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The settings by their full names, as the command line takes them beside a person's own of the same table."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", _toml(value)


def _toml(value: Any) -> str:
    """A text, a number, a truth value or a list of these; TOML writes them as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def _hook_hash(label: str, command: str) -> str:
    """How Codex recognises a hook that a person trusted: by its command and its timeout."""
    hook = {"async": False, "command": command, "timeout": _HOOK_SECONDS, "type": "command"}
    identity = json.dumps({"event_name": label, "hooks": [hook]}, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(identity.encode()).hexdigest()}"

"""Codex: prompts go through the server that runs beside the program in the pane, into the conversation that it shows.

While that cannot be used, prompts are typed: the program's hooks report prompts, answers, questions and interruptions,
and its session log has errors. All settings are given on the command line, over the person's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shlex
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psutil

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question
from torch_tasks.model.usage import TokenCounts, Usage
from torch_tasks.system.files import ring, write_private
from torch_tasks.workers.folders import PromptFolder
from torch_tasks.workers.programs import torch_tools
from torch_tasks.workers.programs.answering import Answered
from torch_tasks.workers.programs.codex.door import ORIGIN, Approval, Delivery, DoorLog, failed, open_approval
from torch_tasks.workers.programs.codex.server import WITH_SERVER, CodexServer, DoorShut
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.conversation import KeptPrompt
from torch_tasks.workers.programs.events import EventKind, EventLog, HookFolder, JoinedLogs, ProgramEvent, transcript_of
from torch_tasks.workers.programs.kind import Hindrance, StateReading
from torch_tasks.workers.programs.pane_program import find_in_box
from torch_tasks.workers.programs.prompt import belongs_to
from torch_tasks.workers.programs.questions import ChosenAnswer
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook

log = logging.getLogger(__name__)

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


class Codex(CodingAgent):
    """Codex without its daemon, so that each agent has its own settings."""

    briefed_by_flag = True
    reports_turns = True
    _said = ""

    def prepare(self) -> None:
        self._server.forget()

    def is_kept(self, conversation: str) -> bool:
        return super().is_kept(conversation) and self._session_log(conversation) is not None

    @property
    def _home(self) -> Path:
        variables = {**os.environ, **self.config.environment}
        return self.outside(Path(variables.get("CODEX_HOME") or Path(variables.get("HOME", "~")) / ".codex"))

    def _session_log(self, conversation: str) -> Path | None:
        return next((self._home / "sessions").glob(f"*/*/*/rollout-*{conversation}.jsonl"), None)

    def kept_prompt(self, submission: Submission, run: PromptFolder) -> KeptPrompt | None:
        path = self._session_log(self.conversation or "")
        return kept_in(path, submission.tag) if path else None

    def command(self) -> list[str]:
        words = super().command()
        settings = [word for name, value in self._settings() for word in ("-c", f"{name}={value}")]
        both = with_server(words, resumes=self.given_conversation is not None) if self.config.door else None
        if both is None:
            return [*words, *settings]
        server, program = both
        address = f"unix://{self._server.socket}"
        commands = {
            "server": [*server, "--listen", address, *settings],
            "program": [*program, "--remote", address, *settings],
            "alone": [*words, *settings],
        }
        # tmux takes no command of this length.
        lines = [f"{name}={shlex.quote(shlex.join(command))}\n" for name, command in commands.items()]
        write_private(self.own / "commands", "".join(lines))
        return ["sh", str(WITH_SERVER), str(self.own)]

    def _settings(self) -> Iterator[tuple[str, str]]:
        yield from _dotted(self.config.settings)
        yield "developer_instructions", _toml(self.briefing)
        if self.config.tools:
            yield from _dotted({"mcp_servers": {torch_tools.NAME: _server(self.own)}})
        yield from self._trust()
        yield from self._hooks()

    def _trust(self) -> Iterator[tuple[str, str]]:
        """The trust in the agent's own folder, unless its person has decided that before.

        A program that is attached to a server never asks for it.
        """
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

    # ── through its server ───────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _server(self) -> CodexServer:
        return CodexServer(self.own, lambda: ring(self.folder), self.outside)

    @cached_property
    def log(self) -> EventLog:
        return DoorLog(
            self._server, JoinedLogs(HookFolder(self.events, self.translate), SessionLog(self.events, self.outside))
        )

    def is_running(self, look: PaneLook) -> bool:
        find = partial(find_in_box, look) if self.box else psutil.Process
        return super().is_running(look) and not self._server.is_gone(find)

    def status(self, pane: AgentPane) -> StateReading | None:
        try:
            conversation = self._server.conversation()
            state = self._server.state(conversation)
            asked = self._approval(conversation) if state is AgentState.WAITING else None
        except DoorShut:
            return None
        return StateReading(state, ORIGIN, "thread/read", asked.question if asked else None)

    def is_free(self, pane: AgentPane) -> bool:
        status = self.status(pane)
        return status.state is AgentState.READY if status else super().is_free(pane)

    def hindrance(self, pane: AgentPane) -> Hindrance | None:
        return None if self.has_started and self.status(pane) else super().hindrance(pane)

    def advance(self, pane: AgentPane, folder: PromptFolder, submission: Submission) -> Submission:
        if not submission.phase.may_become:
            return submission
        delivery = Delivery(self._server, folder, submission)
        if delivery.has_begun or (delivery.may_begin and not submission.pastes):
            try:
                return delivery.advance(submission)
            except DoorShut as shut:
                if delivery.has_begun:
                    return delivery.without_server(submission, self.turn(submission).accepted)
                if self.config.door and submission.phase is SubmissionPhase.INTENDED:
                    self._say_once(f"prompts are typed, as the program's server cannot be used: {shut}")
        return super().advance(pane, folder, submission)

    def _say_once(self, what: str) -> None:
        if what != self._said:
            self._said = what
            log.warning("agent %s: %s", self.agent_id, what)

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> Answered:
        reason = "" if allowed else self.config.answers.reason
        if self._decide(pane, lambda approval: "accept" if allowed else "decline", reason):
            return Answered.GIVEN
        return super().permit(pane, question, allowed=allowed)

    def choose(self, pane: AgentPane, question: Question, reply: ChosenAnswer) -> Answered:
        if self._decide(pane, lambda approval: approval.decisions[reply.numbers[0] - 1]):
            return Answered.GIVEN
        return super().choose(pane, question, reply)

    def _decide(self, pane: AgentPane, decision: Callable[[Approval], Any], reason: str = "") -> bool:
        """Answer what the server asks; False if the answer has to be typed."""
        try:
            conversation = self._server.conversation()
            asked = self._approval(conversation)
            if asked is None:
                view = self.read_screen(pane)
                return view is None or view.by_screen.state is not AgentState.WAITING
            if reason:
                self._server.say(conversation, f"torch-{uuid.uuid4()}", reason)
            self._server.answer(asked.request, {"decision": decision(asked)})
        except DoorShut:
            return False
        return True

    def _approval(self, conversation: str) -> Approval | None:
        return open_approval(self._server.requests(conversation))

    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        if not force:
            with contextlib.suppress(DoorShut):
                self._server.interrupt(self._server.conversation())
                return
        super().interrupt(pane, force=force)


class SessionLog(EventLog):
    """The events that no hook reports: errors, and what each request cost."""

    def __init__(self, events: Path, outside: Callable[[Path], Path]) -> None:
        self._events = events
        self._outside = outside
        self._seen = 0
        self._path: Path | None = None
        self._offset = 0
        self._found: list[ProgramEvent] = []
        self._model: str | None = None

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
            named = transcript_of(self._events)
            path = self._outside(named) if named else None
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
                    if event := self._row(line):
                        self._found.append(event)
        except FileNotFoundError:  # it comes with the first prompt
            pass
        return self._found

    def _row(self, line: bytes) -> ProgramEvent | None:
        """The event that the line tells; a line that names the turn's model says whose the next usage is."""
        try:
            row = json.loads(line)
            at = datetime.fromisoformat(row["timestamp"])
            payload = row["payload"]
            if row["type"] == "turn_context":
                self._model = payload.get("model")
            if row["type"] == "token_usage_record":
                usage = Usage.of(self._model, _tokens(payload["usage"]))
                return ProgramEvent(EventKind.USAGE, usage=usage, at=at, origin="session log")
            if payload.get("type") == "task_complete" and payload.get("error"):
                error = payload["error"]
                info = json.dumps(error.get("codex_error_info"))
                return failed(str(error.get("message", "")), info, at, "session log")
        except (ValueError, LookupError, TypeError, AttributeError):  # a line as another release writes it
            pass
        return None


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


def _tokens(used: Mapping[str, Any]) -> TokenCounts:
    cached = int(used.get("cached_input_tokens") or 0)
    return TokenCounts(
        input_tokens=int(used["input_tokens"]) - cached,
        cached_tokens=cached,
        output_tokens=int(used["output_tokens"]),
        cache_written_tokens=int(used.get("cache_write_input_tokens") or 0),
    )


_NO_DAEMON = "--no-daemon"
#: The words of a command line that its server takes, too, each with the one after it; and the program's own.
_FOR_BOTH = frozenset({"-c", "--config", "--enable", "--disable"})
_FOR_PROGRAM = frozenset({"-m", "--model"})
_BARE = frozenset({_NO_DAEMON, "--no-alt-screen", "--search"})
#: What a program may do, as settings of its server: a program that goes on with a conversation must not say it there.
_PERMISSIONS = {
    "-a": "approval_policy",
    "--ask-for-approval": "approval_policy",
    "-s": "sandbox_mode",
    "--sandbox": "sandbox_mode",
}


def with_server(words: Sequence[str], *, resumes: bool) -> tuple[list[str], list[str]] | None:
    """The command lines of a server, and of the program beside it; None for words of which no server is known."""
    server, program = [words[0], "app-server"], [words[0]]
    following = iter(words[1:])
    for word in following:
        name, _, value = word.partition("=")
        if name in _BARE:
            program += [] if name == _NO_DAEMON else [name]
            continue
        value = value or next(following, "")
        if name in _FOR_BOTH:
            server += [name, value]
        elif name in _PERMISSIONS:
            server += ["-c", f"{_PERMISSIONS[name]}={_toml(value)}"]
        elif name not in _FOR_PROGRAM:
            log.info("%s runs without a server, as Torch does not know of %s what the server needs", words[0], word)
            return None
        program += [] if resumes and name in _PERMISSIONS else [name, value]
    return server, program


def _question(tool: str, given: Mapping[str, Any]) -> Question:
    words = next((value for value in given.values() if isinstance(value, str)), "")
    subject = f"{tool}({words})"
    why = given.get("description")
    return Question(text=f"It asks for the permission to use {subject}" + (f": {why}" if why else ""), subject=subject)


def _server(folder: Path) -> dict[str, Any]:
    """The server of Torch's tools, which may be called without asking a person."""
    program, *words = torch_tools.server_command(folder)
    return {
        "command": program,
        "args": words,
        "env_vars": torch_tools.PASSED_ON,
        "startup_timeout_sec": torch_tools.START_SECONDS,
        "tool_timeout_sec": torch_tools.TOOL_SECONDS,
        "default_tools_approval_mode": "approve",
    }


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

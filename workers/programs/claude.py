"""Claude Code.

Its hooks report every prompt that it takes and every answer; its session file says at each moment whether it is
busy. Both are installed or found per agent: the settings that come with ``--settings`` are laid over the person's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import psutil

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question, Usage
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.events import ErrorKind, EventKind, ProgramEvent, transcript_of
from torch_tasks.workers.programs.kind import StateReading
from torch_tasks.workers.programs.prompt import briefing
from torch_tasks.workers.programs.questions import ChosenAnswer, type_keys
from torch_tasks.workers.programs.reset_time import reset_time
from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane

_HOOKS = (
    "SessionStart",
    "UserPromptSubmit",
    "PermissionRequest",
    "Stop",
    "StopFailure",
    "PreCompact",
    "PostCompact",
    "SessionEnd",
)
_HOOK_SECONDS = 5
#: How long the transcript may lag behind the hooks, and in how much of its end the turn's last line stands.
_LINE_SECONDS, _TAIL_BYTES = 1.0, 16384
_ERRORS: Mapping[str, ErrorKind] = {
    "rate_limit": "limit",
    "billing_error": "limit",
    "authentication_failed": "login",
    "server_error": "overloaded",
    "unknown": "overloaded",  # no answer at all, mostly
}
_READ_TRIES = 5
_STATES = {"busy": AgentState.WORKING, "idle": AgentState.READY, "waiting": AgentState.WAITING}
#: In its session goes on with another conversation.
_GOES_ON = ("clear", "resume", "compact")


class Claude(CodingAgent):
    """Claude Code in its pane."""

    briefed_by_flag = True
    reports_turns = True
    #: What it may always do: report to Torch, and read what Torch gives it.
    allowed: ClassVar[tuple[str, ...]] = tuple(f"Bash(torch-tasks {word}:*)" for word in ("done", "fail", "progress"))

    # ── the start ────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self) -> list[str]:
        model = ["--model", self.config.model] if self.config.model else []
        own = ["--settings", str(self._settings), "--append-system-prompt-file", str(self._briefing)]
        return [*self.config.command, *model, *own]

    def prepare(self) -> None:
        hooks = {
            name: [{"hooks": [{"type": "command", "command": self.report_command(name), "timeout": _HOOK_SECONDS}]}]
            for name in _HOOKS
        }
        allow = [*self.allowed, f"Read(/{self.folder / 'runs'}/**)"]
        self._settings.write_text(json.dumps({"hooks": hooks, "permissions": {"allow": allow}}, indent=1) + "\n")
        self._briefing.write_text(briefing(self.spec))

    @property
    def _settings(self) -> Path:
        return self.folder / "claude.json"

    @property
    def _briefing(self) -> Path:
        return self.folder / "briefing.md"

    # ── what it reports ──────────────────────────────────────────────────────────────────────────────────────────

    def translate(self, name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
        match name:
            case "SessionStart" if given.get("source") not in _GOES_ON:
                return ProgramEvent(EventKind.STARTED)
            case "UserPromptSubmit":
                return ProgramEvent(EventKind.ACCEPTED, text=str(given["prompt"]))
            case "PermissionRequest":
                parts = questions(str(given["tool_name"]), given["tool_input"])
                return ProgramEvent(EventKind.QUESTION, question=parts[0], parts=parts)
            case "Stop":
                return ProgramEvent(EventKind.STOPPED, text=str(given.get("last_assistant_message") or ""))
            case "StopFailure":
                return _failure(str(given.get("error")), str(given.get("last_assistant_message") or ""))
            case "PreCompact":
                return ProgramEvent(EventKind.COMPACTING)
            case "PostCompact":
                return ProgramEvent(EventKind.COMPACTED)
            case "SessionEnd" if given.get("reason") not in _GOES_ON:
                return ProgramEvent(EventKind.ENDED, text=str(given.get("reason")))
        return None

    # ── what it does ─────────────────────────────────────────────────────────────────────────────────────────────

    def status(self, pane: AgentPane) -> StateReading | None:
        look = pane.look()
        session = self._session(look.pid) if look else None
        state = _STATES.get(str(session.get("status"))) if session else None
        if session is None or state is None:
            return None
        waits_for = str(session.get("waitingFor", ""))
        if waits_for == "dialog open":  # the screen shows which one
            return None
        return StateReading(state, "session file", " ".join(filter(None, (str(session["status"]), waits_for))))

    def _session(self, pid: int) -> dict[str, Any] | None:
        """What the program of this process, or of one below it, keeps of its session."""
        for number in _family(pid):
            file = self._home / "sessions" / f"{number}.json"
            for _ in range(_READ_TRIES):
                try:
                    return dict(json.loads(file.read_bytes()))
                except FileNotFoundError:
                    break
                except ValueError:  # it is just being written
                    time.sleep(0.005)
        return None

    @property
    def _home(self) -> Path:
        surroundings = {**os.environ, **self.config.environment}
        return Path(surroundings.get("CLAUDE_CONFIG_DIR") or Path(surroundings.get("HOME", "~")) / ".claude")

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> None:
        if not (allowed and question.subject == PLAN):
            super().permit(pane, question, allowed=allowed)
            return
        # Each Yes but the last would have it ask for nothing any more; which one that is, its dialog shows.
        yes = [number for number, choice in enumerate(question.choices, 1) if choice.startswith("Yes")]
        if yes:
            type_keys(pane, self.config.answers.choice, yes[-1])

    def choose(self, pane: AgentPane, question: Question, reply: ChosenAnswer) -> None:
        screen = Screen.of(pane)
        keys = choice_keys(screen.text, question, reply) if screen else None
        if keys is None:
            super().choose(pane, question, reply)
        else:
            type_keys(pane, keys, text=reply.text)

    # ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────

    def usage(self, run: AttemptFolder, turn: Turn) -> Usage | None:
        transcript = transcript_of(self.events)
        if transcript is None:
            return None
        if turn.over:
            _await_end(transcript, turn.over.at)
        begun = datetime.fromtimestamp(run.prompt.stat().st_mtime).astimezone()
        costs: dict[str, Mapping[str, Any]] = {}
        for path in (transcript, *transcript.with_suffix("").glob("subagents/*.jsonl")):
            costs.update(_costs(path, begun))
        return Usage(
            input_tokens=sum(_tokens(cost, "input_tokens", "cache_creation_input_tokens") for cost in costs.values()),
            cached_tokens=sum(_tokens(cost, "cache_read_input_tokens") for cost in costs.values()),
            output_tokens=sum(_tokens(cost, "output_tokens") for cost in costs.values()),
        )


def _family(pid: int) -> Iterator[int]:
    """The process, and then those below it, for a command that only starts the program."""
    yield pid
    try:
        yield from (process.pid for process in psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return


def _failure(error: str, said: str) -> ProgramEvent:
    kind = _ERRORS.get(error, "other")
    _, resets, when = said.partition("resets ")
    until = reset_time(when, now()) if kind == "limit" and resets else None
    return ProgramEvent(EventKind.FAILED, text=said, error=kind, until=until)


def _await_end(transcript: Path, over: datetime) -> None:
    """Wait a moment for the turn's last line, which comes after the hooks."""
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


def _costs(transcript: Path, begun: datetime) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What each answer of the model cost since then; one answer may have several lines."""
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
            yield row["message"]["id"], row["message"]["usage"]
        except (ValueError, LookupError, AttributeError):  # a line of another kind, or half written
            continue


def _tokens(cost: Mapping[str, Any], *names: str) -> int:
    return sum(int(cost.get(name) or 0) for name in names)


PLAN = "ExitPlanMode()"
"""The subject of the question whether it may go on with its plan."""
_TEXT_CHOICE = "Type something."
_CURSOR = re.compile(r"^\u276f (\d+)\.", re.MULTILINE)
_CHECKED = re.compile(r"^(?:\u276f| ) (\d+)\. \[✔\]", re.MULTILINE)


def questions(tool: str, given: Mapping[str, Any]) -> tuple[Question, ...]:
    """What its request to use this tool asks, part by part."""
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
    if not any(option.get("preview") for option in options):  # beside previews there is no room for words
        choices.append(_TEXT_CHOICE)
    return Question(text=str(asked["question"]), choices=tuple(choices), several=bool(asked.get("multiSelect")))


def choice_keys(screen: str, question: Question, reply: ChosenAnswer) -> list[str] | None:
    """The keys that answer the question on the screen; None if it is none of the model's own.

    A number takes a choice only in some of these dialogs, and is a text where a text is being written: so the cursor
    is moved there, from where it is.
    """
    if "Enter to select" not in screen.rpartition("\n")[2]:
        return None
    found = _CURSOR.search(screen)
    below = len(question.choices) + 1  # where a choice of several is left
    cursor = int(found[1]) if found else below
    if not question.several:
        return [*_moves(cursor, reply.numbers[-1]), *(["{text}"] if reply.text else []), "Enter"]
    checked = {int(number) for number in _CHECKED.findall(screen)}
    wanted = set() if reply.text else set(reply.numbers)
    keys = _moves(cursor, 1)
    keys += [str(number) for number in sorted(checked ^ wanted)]
    if reply.text:
        keys += [*_moves(1, reply.numbers[-1]), "{text}"]
    return [*keys, *_moves(reply.numbers[-1] if reply.text else 1, below), "Enter"]


def _moves(start: int, end: int) -> list[str]:
    return ["Down" if end > start else "Up"] * abs(end - start)

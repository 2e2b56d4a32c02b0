"""aider.

It rings the bell whenever it waits for its person; what it waits for is read from the screen. That it has a prompt, its
answer and what that cost are read from its chat history, of which each agent has its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from torch_tasks.model.task import Evidence, FailureKind, Question, Usage
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.events import EventKind, EventLog, ProgramEvent
from torch_tasks.workers.programs.kind import ProgramEnding
from torch_tasks.workers.programs.prompt import belongs_to, briefing
from torch_tasks.workers.programs.turn import Turn, failed_ending
from torch_tasks.workers.tmux.pane import AgentPane

_TOKENS = re.compile(r"^> Tokens: ([\d.]+k?) sent,.*?([\d.]+k?) received\.(?: Cost: \$([\d.]+) message)?", re.MULTILINE)
_ERROR = re.compile(r"^> litellm\.(\w+): (.*?) *$", re.MULTILINE)
_OVERLOADED = ("RateLimitError", "ServiceUnavailableError", "InternalServerError", "APIConnectionError", "Timeout")
_NUMBERED = {"1": "y", "2": "n", "allow": "y", "deny": "n"}


class Aider(CodingAgent):
    """aider in its pane."""

    briefed_by_flag = True

    # ── launch ───────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self) -> list[str]:
        model = ["--model", self.config.model] if self.config.model else []
        own = ["--read", str(self.folder / "briefing.md"), "--chat-history-file", str(self._history)]
        own += ["--input-history-file", str(self.folder / "input.history")]
        own += ["--notifications", "--notifications-command", self.report_command("Waits")]
        return [*self.config.command, *model, *own]

    def prepare(self) -> None:
        (self.folder / "briefing.md").write_text(briefing(self.spec))

    @property
    def _history(self) -> Path:
        return self.folder / "chat.md"

    # ── what it reports ──────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def own_log(self) -> EventLog:
        return ChatHistoryLog(self._history)

    def end(self, run: AttemptFolder, turn: Turn, ending: ProgramEnding, answer: str) -> ProgramEnding:
        exchange = next((one for one in reversed(exchanges(self._history)) if belongs_to(one.prompt, run.tag)), None)
        if exchange and ending.evidence.kind == "screen":
            ending, answer = exchange.ending(), exchange.answer
        return super().end(run, turn, ending, answer)

    def usage(self, run: AttemptFolder, turn: Turn) -> Usage | None:
        ours = self._exchanges(run)
        return ours[-1].usage if ours else None

    def _exchanges(self, run: AttemptFolder) -> list[Exchange]:
        return [one for one in exchanges(self._history) if belongs_to(one.prompt, run.tag)]

    # ── interventions ────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, pane: AgentPane, question: Question, reply: str) -> bool:
        words = reply.strip()
        if not words or "\n" in words:
            return False
        pane.paste(_NUMBERED.get(words.casefold(), words))
        pane.press("Enter")
        return True


@dataclass(frozen=True)
class Exchange:
    """A prompt, and what came back."""

    prompt: str
    reply: str

    @property
    def answer(self) -> str:
        """The model's words, without aider's own lines."""
        return "\n".join(line for line in self.reply.split("\n") if not line.startswith("> ")).strip()

    @property
    def usage(self) -> Usage | None:
        """What it cost, as aider rounds it."""
        costs = _TOKENS.findall(self.reply)
        if not costs:
            return None
        cost = sum(float(dollars) for _, _, dollars in costs if dollars) if any(one[2] for one in costs) else None
        sent, received = (sum(_number(one[place]) for one in costs) for place in (0, 1))
        return Usage(input_tokens=sent, output_tokens=received, cost_usd=cost)

    def ending(self) -> ProgramEnding:
        """How the turn ended, now that aider waits for the next."""
        if _TOKENS.search(self.reply):
            return ProgramEnding(
                Evidence(kind="stop_event", detail="chat history: the answer is complete", passed=True)
            )
        errors = _ERROR.findall(self.reply)
        name, said = errors[-1] if errors else ("", "its turn ended without an answer")
        kind = FailureKind.OVERLOADED if name in _OVERLOADED else FailureKind.AGENT_FAILED
        message = f"{name}: {said}" if name else said
        return failed_ending(
            kind, message, Evidence(kind="stop_event", detail=f"chat history: {message}", passed=False)
        )


class ChatHistoryLog(EventLog):
    """The prompts that were accepted, by the chat history."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> str:
        return str(len(exchanges(self._path)))

    def since(self, mark: str) -> list[ProgramEvent]:
        found = exchanges(self._path)[int(mark or 0) :]
        if not found:
            return []
        at = datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
        return [ProgramEvent(EventKind.ACCEPTED, text=one.prompt, at=at, origin="chat history") for one in found]


def exchanges(path: Path) -> list[Exchange]:
    """All prompts and what came back, oldest first."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    found = re.findall(r"((?:^#### .*\n)+)((?:(?!#### |# aider chat started).*(?:\n|\Z))*)", text, re.MULTILINE)
    return [Exchange("\n".join(line[5:].rstrip() for line in prompt.splitlines()), reply) for prompt, reply in found]


def _number(text: str) -> int:
    return int(float(text.removesuffix("k")) * (1000 if text.endswith("k") else 1))

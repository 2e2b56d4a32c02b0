"""aider: rings the bell whenever it waits for input; its screen shows for what.

Its prompts, answers and costs are read from a chat history of the agent's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from torch_tasks.model.task import Evidence, FailureKind, Question
from torch_tasks.model.usage import Usage
from torch_tasks.system.files import write_private
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs.answering import Answered, Answerer
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.conversation import KeptPrompt
from torch_tasks.workers.programs.events import EventKind, EventLog, ProgramEvent
from torch_tasks.workers.programs.kind import ProgramEnding
from torch_tasks.workers.programs.prompt import belongs_to
from torch_tasks.workers.programs.submission import Submission
from torch_tasks.workers.programs.turn import Turn, failed_ending
from torch_tasks.workers.tmux.pane import AgentPane

_TOKENS = re.compile(r"^> Tokens: ([\d.]+k?) sent,.*?([\d.]+k?) received\.(?: Cost: \$([\d.]+) message)?", re.MULTILINE)
_ERROR = re.compile(r"^> litellm\.(\w+): (.*?) *$", re.MULTILINE)
_OVERLOADED = ("RateLimitError", "ServiceUnavailableError", "InternalServerError", "APIConnectionError", "Timeout")
_COVERED = "covered question"
"""The rule in its TOML for a question over which it goes on drawing that it waits for its model."""


class Aider(CodingAgent):
    briefed_by_flag = True

    def command(self) -> list[str]:
        own = ["--read", str(self.briefing_file)]
        own += ["--input-history-file", str(self.own / "input.history")]
        own += ["--notifications", "--notifications-command", self.report_command("Waits")]
        return [*super().command(), *own]

    def prepare(self) -> None:
        write_private(self.briefing_file, self.briefing)

    @property
    def _history(self) -> Path:
        return self.own / f"chat-{self.given_conversation}.md"

    def is_kept(self, conversation: str) -> bool:
        return super().is_kept(conversation) and (self.own / f"chat-{conversation}.md").exists()

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> Answered:
        """Answer by the letter where the choices are covered: each key is pressed only while that question is asked."""
        if not self._asks_covered(pane):
            return super().permit(pane, question, allowed=allowed)
        answerer = Answerer(pane, self._rules.menu)
        for key in (*self.config.keys.clear[:1], "y" if allowed else "n", "Enter"):
            if not self._asks_covered(pane) or answerer.press((key,)) is not Answered.GIVEN:
                return Answered.NOT_GIVEN
        return Answered.GIVEN

    def _asks_covered(self, pane: AgentPane) -> bool:
        view = self.read_screen(pane)
        return view is not None and view.by_screen.rule == _COVERED

    def kept_prompt(self, submission: Submission, run: PromptFolder) -> KeptPrompt | None:
        exchange = self._exchange(run)
        if exchange is None:
            return None
        ending = exchange.ending()
        return KeptPrompt(None if ending.failure else exchange.answer)

    @cached_property
    def own_log(self) -> EventLog:
        return ChatHistoryLog(lambda: self._history)

    def end(self, run: AttemptFolder, turn: Turn, ending: ProgramEnding, answer: str) -> ProgramEnding:
        exchange = self._exchange(run)
        if exchange and ending.evidence.kind == "screen":
            ending, answer = exchange.ending(), exchange.answer
        return super().end(run, turn, ending, answer)

    def usage(self, run: AttemptFolder, turn: Turn) -> Usage | None:
        exchange = self._exchange(run)
        return exchange.usage if exchange else None

    def _exchange(self, run: PromptFolder) -> Exchange | None:
        return next((one for one in reversed(exchanges(self._history)) if belongs_to(one.prompt, run.tag)), None)


@dataclass(frozen=True)
class Exchange:
    """A prompt and the reply to it."""

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
        """How the turn ended, once aider waits for the next prompt."""
        if _TOKENS.search(self.reply):
            evidence = Evidence(kind="stop_event", detail="chat history: the answer is complete", passed=True)
            return ProgramEnding(evidence)
        errors = _ERROR.findall(self.reply)
        name, reason = errors[-1] if errors else ("", "its turn ended without an answer")
        kind = FailureKind.OVERLOADED if name in _OVERLOADED else FailureKind.AGENT_FAILED
        message = f"{name}: {reason}" if name else reason
        evidence = Evidence(kind="stop_event", detail=f"chat history: {message}", passed=False)
        return failed_ending(kind, message, evidence)


class ChatHistoryLog(EventLog):
    """The accepted prompts, by the chat history."""

    def __init__(self, path: Callable[[], Path]) -> None:
        self._path = path

    def mark(self) -> str:
        return str(len(exchanges(self._path())))

    def since(self, mark: str) -> list[ProgramEvent]:
        found = exchanges(self._path())[int(mark or 0) :]
        if not found:
            return []
        at = datetime.fromtimestamp(self._path().stat().st_mtime, UTC)
        return [ProgramEvent(EventKind.ACCEPTED, text=one.prompt, at=at, origin="chat history") for one in found]


def exchanges(path: Path) -> list[Exchange]:
    """All prompts with their replies, oldest first."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    found = re.findall(r"((?:^#### .*\n)+)((?:(?!#### |# aider chat started).*(?:\n|\Z))*)", text, re.MULTILINE)
    return [Exchange("\n".join(line[5:].rstrip() for line in prompt.splitlines()), reply) for prompt, reply in found]


def _number(text: str) -> int:
    return int(float(text.removesuffix("k")) * (1000 if text.endswith("k") else 1))

"""What each program's own log shows of a task in which the program was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from torch_tasks.workers.programs import claude, gemini
from torch_tasks.workers.programs.aider import exchanges
from torch_tasks.workers.programs.codex import program as codex
from torch_tasks.workers.programs.conversation import KeptPrompt
from torch_tasks.workers.programs.opencode.server import kept_in

TAG = "task t-1"
PROMPT = 'do it\n\n[torch task t-1 · when done: torch-tasks done t-1 "what"]'
OTHER = 'else\n\n[torch task t-2 · when done: torch-tasks done t-2 "what"]'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def write(log: Path, *rows: dict[str, Any]) -> Path:
    """The rows, and half of one, in which the program was killed."""
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"type": "us')
    return log


def user(text: str) -> dict[str, Any]:
    return {"type": "user", "message": {"role": "user", "content": text}}


def said(text: str, reason: str | None, number: str = "m1", **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "assistant", "message": {"id": number, "content": content, "stop_reason": reason}, **more}


class TestClaude:
    def test_nothing_of_the_task(self, log: Path) -> None:
        assert claude.kept_in(write(log, user(OTHER), said("Yes.", "end_turn")), TAG) is None

    def test_unanswered(self, log: Path) -> None:
        tool = {"type": "user", "message": {"content": [{"type": "tool_result", "content": "made"}]}}
        assert claude.kept_in(write(log, user(PROMPT)), TAG) == KeptPrompt()
        assert claude.kept_in(write(log, user(PROMPT), said("I will.", "tool_use")), TAG) == KeptPrompt()
        assert claude.kept_in(write(log, user(PROMPT), said("I will.", "tool_use"), tool), TAG) == KeptPrompt()
        assert claude.kept_in(write(log, said("Yes.", "end_turn"), user(PROMPT)), TAG) == KeptPrompt()

    def test_answered(self, log: Path) -> None:
        rows = [user(PROMPT), said("I will.", "tool_use"), said("It ", None, "m2"), said("is.", "end_turn", "m2")]
        helper = said("A helper's word.", "end_turn", isSidechain=True)
        assert claude.kept_in(write(log, *rows, helper, {"type": "system"}), TAG) == KeptPrompt("It is.")


class TestCodex:
    def prompt(self, text: str) -> dict[str, Any]:
        return {"payload": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}}

    def over(self, answer: str, **more: Any) -> dict[str, Any]:
        return {"payload": {"type": "task_complete", "last_agent_message": answer, **more}}

    def test_what_is_kept(self, log: Path) -> None:
        assert codex.kept_in(write(log, self.prompt(OTHER), self.over("Yes.")), TAG) is None
        assert codex.kept_in(write(log, self.prompt(PROMPT)), TAG) == KeptPrompt()
        assert (
            codex.kept_in(write(log, self.prompt(PROMPT), self.over("", error={"message": "no"})), TAG) == KeptPrompt()
        )
        assert codex.kept_in(write(log, self.prompt(PROMPT), self.over("It is.")), TAG) == KeptPrompt("It is.")


class TestGemini:
    def row(self, kind: str, text: str, **more: Any) -> dict[str, Any]:
        return {"id": text, "type": kind, "timestamp": "1", "content": text, **more}

    def test_what_is_kept(self, log: Path) -> None:
        prompt, tool = self.row("user", PROMPT), self.row("gemini", "I will.", toolCalls=[{"name": "x"}])
        assert gemini.kept_in([write(log, self.row("user", OTHER), self.row("gemini", "Yes."))], TAG) is None
        assert gemini.kept_in([write(log, prompt)], TAG) == KeptPrompt()
        assert gemini.kept_in([write(log, prompt, tool)], TAG) == KeptPrompt()
        assert gemini.kept_in([write(log, prompt, self.row("gemini", "It is."))], TAG) == KeptPrompt("It is.")

    def test_a_log_that_the_next_program_began_does_not_hide_the_prompt(self, log: Path, tmp_path: Path) -> None:
        begun = [{"sessionId": "s", "startTime": "2"}, {"$set": {"messages": [self.row("user", "the context")]}}]
        logs = [write(tmp_path / "begun.jsonl", *begun), write(log, self.row("user", PROMPT))]
        assert gemini.kept_in(logs, TAG) == KeptPrompt()


class TestOpenCode:
    def message(self, number: str, role: str, **info: Any) -> dict[str, Any]:
        parts = [{"type": "text", "text": "It is."}]
        return {"info": {"id": number, "role": role, "time": {"created": 1}, **info}, "parts": parts}

    def test_what_is_kept(self) -> None:
        prompt, begun = self.message("msg_1", "user"), self.message("msg_2", "assistant")
        over = self.message("msg_2", "assistant", time={"completed": 2}, finish="stop")
        assert kept_in([begun, over], "msg_1") is None
        assert kept_in([prompt, begun], "msg_1") == KeptPrompt()
        assert kept_in([prompt, over], "msg_1") == KeptPrompt("It is.")


def test_aider_keeps_a_prompt_without_its_answer(log: Path) -> None:
    log.write_text("\n# aider chat started\n\n" + "".join(f"#### {line}  \n" for line in PROMPT.splitlines()))
    [exchange] = exchanges(log)
    assert exchange.ending().failure

"""OpenCode and the Gemini CLI as agents of the fleet over the Agent Client Protocol, as a kind of the user's own."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
from hosted import Hosted
from promises import WithTools

from torch_tasks.client import Task
from torch_tasks.workers.certify.fake_model.steps import Await, Call, Text
from torch_tasks.workers.certify.homes import GeminiHome, Home, OpenCodeHome

pytestmark = pytest.mark.slow


class OverAcp(Home):
    """A home whose owner says that the program is driven over the protocol."""

    acp_flags: ClassVar[tuple[str, ...]]
    exit_keys = ("C-d",)

    @property
    def variables(self) -> dict[str, str]:
        return {**super().variables, "TORCH_CONFIG_DIR": str(self.folder / "torch")}

    def settle(self) -> None:
        super().settle()
        command = json.dumps([self.cli, *self.acp_flags])
        self.file(f"torch/agents/{self.cli}.toml", f'base = "acp"\ncommand = {command}\n')


class OpenCodeOverAcp(OverAcp, OpenCodeHome):
    acp_flags = ("acp",)


class GeminiOverAcp(OverAcp, GeminiHome):
    acp_flags = ("--acp",)


class ProgramsOverAcp(WithTools):
    """What holds for each of them."""

    def test_a_person_in_the_pane_is_left_alone(self, agent: Hosted) -> None:
        """A prompt goes past what is typed, and need not wait."""
        agent.worker.tmux("send-keys", "-l", "a person types")
        assert agent.do("meanwhile").succeeded
        assert "a person types" in agent.worker.screen()
        agent.worker.tmux("send-keys", "C-u")


class TestOpenCodeOverAcp(ProgramsOverAcp):
    home = OpenCodeOverAcp
    briefed_in = "messages"
    shell_tool = "execute"
    allow_choice = "Allow once"

    def making(self, agent: Hosted, name: str) -> Call:
        return Call("write", {"filePath": str(agent.home.work / name), "content": "hello"})

    def check_denied(self, agent: Hosted, task: Task) -> None:
        assert task.result(timeout=120)
        assert any(note.startswith("denied edit(") for note in agent.notes(task))


class TestGeminiOverAcp(ProgramsOverAcp):
    home = GeminiOverAcp
    briefed_in = "contents"
    shell_tool = "execute"
    allow_choice = "Allow for this session"

    def making(self, agent: Hosted, name: str) -> Call:
        return Call("write_file", {"file_path": str(agent.home.work / name), "content": "hello"})

    def check_denied(self, agent: Hosted, task: Task) -> None:
        assert task.result(timeout=120)
        assert any(note.startswith("denied edit(") for note in agent.notes(task))

    def test_killed_in_the_middle_of_a_turn_it_goes_on_in_its_conversation(self, agent: Hosted) -> None:
        """Or does the task again, whole: Gemini 0.61.0 empties a session that it loads in the minute of its log."""
        agent.llm.on("Go on with the task", Text("gone on"))
        rule = agent.llm.on("cut off in the middle", Text("Begun.\n\nAnd "), Await("cut-off"))
        task = agent.give("cut off in the middle")
        agent.wait(lambda: agent.llm.holding("cut-off"), "the model works")
        agent.wait(lambda: "Begun." in agent.worker.screen(), "its answer is seen")
        agent.kill_machine()
        agent.llm.release("cut-off")
        agent.llm.off(rule)
        agent.llm.on("cut off in the middle", Text("done again"))
        agent.host()
        result = task.result(timeout=120)
        emptied = any("its conversation does not hold the prompt" in note for note in agent.notes(task))
        assert (result.answer, result.attempts) == (("done again", 2) if emptied else ("gone on", 1))
        assert agent.do("and the next").succeeded

"""The Gemini CLI as an agent of the fleet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hosted import Hosted
from promises import WithTools, WithTorchTools

from torch_tasks.client import Task
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import FailureKind
from torch_tasks.state_folder import PROGRAM
from torch_tasks.workers.certify.fake_model.steps import Call, Fail, Text
from torch_tasks.workers.certify.homes import GeminiHome

pytestmark = pytest.mark.slow

SETTINGS = '{"ui": {"theme": "Default Light"}, // mine\n}'


class Newcomer(GeminiHome):
    """A user who has met none of its dialogs, and has settings with a comment."""

    def settle(self) -> None:
        self.file(".gemini/settings.json", SETTINGS)
        self.file(".gemini/GEMINI.md", "Always mention the harbour.")


class TestGemini(WithTorchTools, WithTools):
    """What all keep, and what is special here."""

    home = Newcomer
    torch_tool = "mcp_torch_{}"
    briefed_in = "systemInstruction"
    shell_tool = "Shell"
    allow_choice = "Allow once"

    def making(self, agent: Hosted, name: str) -> Call:
        return Call("write_file", {"file_path": str(agent.home.work / name), "content": "hello"})

    def check_denied(self, agent: Hosted, task: Task) -> None:
        error = task.result(timeout=120).error
        assert error
        assert error.kind is FailureKind.AGENT_FAILED

    def test_the_persons_settings_are_kept_and_left_alone(self, agent: Hosted) -> None:
        person = agent.home.folder / ".gemini"
        assert (person / "settings.json").read_text() == SETTINGS
        assert {path.name for path in person.iterdir()} == {"settings.json", "GEMINI.md"}
        own = json.loads((agent.worker.folder / PROGRAM / "home/.gemini/settings.json").read_text())
        assert own["ui"]["theme"] == "Default Light"
        assert own["security"]["auth"]["selectedType"] == "gemini-api-key", "it was not asked how to log in"
        assert agent.do("hello, you", id="hello-you").succeeded
        assert "Always mention the harbour." in json.dumps(agent.requests("hello-you")[0].body[self.briefed_in])

    def test_a_file_that_is_there_is_named_and_not_read(self, agent: Hosted) -> None:
        (agent.home.work / "README.md").write_text("the readme")
        assert agent.do("@README.md is what it is about", id="reference").succeeded
        [received] = agent.received("reference")
        assert received.startswith("\\@README.md is what it is about\n")
        assert received.endswith("]")

    def test_a_large_prompt_is_pasted_whole(self, agent: Hosted) -> None:
        """It is not: it is given as a file."""
        prompt = self.large_prompt()
        assert agent.do(prompt, id="large").succeeded
        [received] = agent.received("large")
        file = agent.worker.folder / "runs" / "large.1" / "prompt"
        assert str(file) in received
        assert Path(file).read_text() == prompt

    def test_it_may_report_to_torch_without_asking(self, agent: Hosted) -> None:
        report = agent.home.shell('torch-tasks done reported "all of it"')
        agent.llm.on("report it", report, Text("I have reported."))
        result = agent.do("report it", id="reported")
        assert (result.answer, result.evidence[0].kind) == ("all of it", "done")

    def test_an_error_is_told(self, agent: Hosted) -> None:
        agent.llm.on("too much", Fail("too_long"))
        failed = agent.do("too much", max_retries=0)
        assert failed.error
        assert "exceeds the maximum number of tokens" in failed.error.message

    def test_a_used_up_limit_is_waited_for(self, agent: Hosted) -> None:
        agent.llm.on("limited", Text("served"))
        agent.llm.on("limited", Fail("usage_limit"), times=1)
        task = agent.give("limited")
        agent.wait(lambda: agent.worker.agent_state is AgentState.LIMITED, "the agent is limited")
        assert task.result(timeout=120).answer == "served"

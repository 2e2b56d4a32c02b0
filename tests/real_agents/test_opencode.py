"""OpenCode as an agent of the fleet."""

from __future__ import annotations

import pytest
from hosted import Hosted
from promises import WithTools, WithTorchTools

from torch_tasks.client import Task
from torch_tasks.model.agent import AgentState
from torch_tasks.state_folder import UNPACKED
from torch_tasks.workers.certify.fake_model.steps import Call, Fail
from torch_tasks.workers.certify.homes import OpenCodeHome

pytestmark = pytest.mark.slow


class TestOpenCode(WithTorchTools, WithTools):
    """What all keep, and what is special here."""

    home = OpenCodeHome
    torch_tool = "torch_{}"
    briefed_in = "messages"
    shell_tool = "bash"
    allow_choice = "Allow once"

    def making(self, agent: Hosted, name: str) -> Call:
        return Call("write", {"filePath": str(agent.home.work / name), "content": "hello"})

    def check_denied(self, agent: Hosted, task: Task) -> None:
        assert task.result(timeout=120).succeeded  # it is told why, and goes on
        assert any(note.startswith("denied edit(") for note in agent.notes(task))
        [refusal] = agent.llm.requests(agent.home.key)[-1].tool_results[-1:]
        assert "policy does not allow this" in refusal

    def test_its_session_has_the_agents_name(self, agent: Hosted) -> None:
        assert agent.do("hello, you").succeeded
        assert agent.worker.tmux("display-message", "-p", "#{pane_title}") == "OC | developer-1"

    def test_what_it_unpacks_at_its_start_is_not_left_behind(self, agent: Hosted) -> None:
        libraries = []
        for _ in range(2):
            assert agent.do("begin anew", fresh=True).succeeded
            libraries.append(set((agent.worker.folder / UNPACKED).glob("*.so")))
        assert all(libraries)
        assert not libraries[0] & libraries[1]
        assert [file for file in agent.home.temporaries.rglob("*") if file.is_file()] == []

    def test_a_person_in_the_pane_is_left_alone(self, agent: Hosted) -> None:
        """A prompt goes past the composer, and need not wait."""
        agent.worker.tmux("send-keys", "-l", "a person types")
        assert agent.do("meanwhile").succeeded
        assert "a person types" in agent.worker.screen()
        agent.worker.tmux("send-keys", "C-u")

    def test_a_used_up_limit_is_waited_for(self, agent: Hosted) -> None:
        rule = agent.llm.on("limited", *[Fail("usage_limit")] * 9)
        task = agent.give("limited")
        agent.wait(lambda: agent.worker.agent_state is AgentState.LIMITED, "the agent is limited")
        agent.llm.off(rule)
        assert task.result(timeout=120).succeeded

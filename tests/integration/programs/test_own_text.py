"""Torch's own text in the composer: it is not taken for a question, and what is left of it keeps nothing out."""

from __future__ import annotations

import pytest
from fake_kind import FakeKind, words
from fakes.cli.scenario import Scenario, Ways
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import Torch

ASKS = r"""
[[rules]]
name = "asks"
state = "waiting"
where = "bottom 6"
pattern = '(?P<question>Allow (?P<subject>Bash\(.*?\))\?)'
priority = 25
"""


@pytest.fixture(scope="module")
def fake(shared_node: Node) -> FakeKind:
    """A program of which only the screen tells; a rule of its kind reads requests for permission."""
    return FakeKind(shared_node, hooks=False, settle=1.0, scenario=Scenario(ways=Ways(collapse_lines=99)), more=ASKS)


@pytest.fixture(scope="module")
def agent(fake: FakeKind, torch: Torch) -> AgentWorker:
    """Its agent, which was briefed."""
    agent = fake.worker()
    assert torch.enqueue("get ready", agent=agent.agent_id).result(timeout=60).succeeded
    return agent


def test_a_question_that_the_prompt_quotes_is_not_answered_into_it(
    fake: FakeKind, agent: AgentWorker, torch: Torch
) -> None:
    prompt = "Say what this means:\nAllow Bash(rm -rf)?"
    task = torch.enqueue(prompt, agent=agent.agent_id, permissions="allow")
    assert task.result(timeout=60).succeeded
    assert words(fake.prompts()[-1]) == prompt
    assert "allowed" not in "\n".join(entry.note or "" for entry in task.history())


def test_a_text_of_torchs_own_that_is_left_in_the_composer_keeps_no_task_out(
    fake: FakeKind, agent: AgentWorker, torch: Torch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = torch.enqueue("the first task", agent=agent.agent_id)
    assert first.result(timeout=60).succeeded
    left = (agent.folder / "runs" / f"{first.id}.1" / "pasted").read_text()
    file = tmp_path_factory.mktemp("left") / "text"
    file.write_text(left)
    agent.tmux("load-buffer", str(file))
    agent.tmux("paste-buffer", "-p", "-r")
    until(lambda: "│ > the first task" in agent.screen(), "a second copy is left")
    assert torch.enqueue("the second task", agent=agent.agent_id).result(timeout=60).succeeded
    assert [words(prompt) for prompt in fake.prompts()[-2:]] == ["the first task", "the second task"]

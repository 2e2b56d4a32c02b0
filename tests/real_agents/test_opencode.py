"""OpenCode as an agent of the fleet: what its model received is what is asserted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import needs
from fakes.llm.client import FakeLLM
from fakes.llm.steps import Call, Fail, Hold, Text
from home import OpenCode
from hosted import Hosted
from nodes import Node, short_folder
from prompts import ODD_PROMPTS

from torch_tasks import TaskState, Torch
from torch_tasks.models import AgentState, FailureKind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # its first start and its first prompt are slow


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for tmux sockets."""
    folder = short_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[FakeLLM]:
    """One model for all."""
    with FakeLLM(folder / "llm") as llm:
        yield llm


@pytest.fixture(scope="module")
def agent(folder: Path, llm: FakeLLM, shared_node: Node, torch: Torch) -> Iterator[Hosted]:
    """The agent of this module's tests."""
    needs("opencode")
    home = OpenCode(folder / "home", llm)
    yield Hosted(
        home, shared_node, torch, "developer-1", TORCH_ACCOUNT_PAUSE_SECONDS="2", TORCH_AGENT_START_SECONDS="150"
    )
    home.clear()


def test_it_starts_and_knows_its_briefing(agent: Hosted) -> None:
    result = agent.do("hello")
    assert result.succeeded
    assert "torch-tasks done" in json.dumps(agent.llm.requests(agent.home.key)[-1].body)
    assert agent.worker.tmux("display-message", "-p", "#{pane_title}") == "OC | developer-1"


def test_odd_prompts_arrive_exactly_once_and_nothing_runs_locally(agent: Hosted) -> None:
    answer = "The answer:\n\n```sh\necho ─ │ x\n```\nand that is all."
    rule = agent.llm.on("torch task odd-", Text(answer))
    tasks = {odd.name: agent.give(odd.prompt, id=f"odd-{odd.name}") for odd in ODD_PROMPTS}
    for odd in ODD_PROMPTS:
        task = tasks[odd.name]
        result = task.result(timeout=120)
        assert (odd.name, result.status, result.answer) == (odd.name, TaskState.SUCCEEDED, answer)
        assert result.evidence[0].kind == "stop_event"
        [received] = agent.received(task.id)
        assert odd.arrives in received
        assert received.endswith("]")
        told = agent.notes(task)
        assert all(any(note.startswith(fact) for note in told) for fact in ("staged", "submitted", "accepted")), told
    assert not (agent.home.work / "ran-by-the-cli").exists()
    agent.llm.off(rule)


def test_a_large_prompt_arrives_whole(agent: Hosted) -> None:
    prompt = "\n".join(f"{number}: " + "0123456789 " * 9 for number in range(2000))
    assert agent.do(prompt, id="large").succeeded
    [received] = agent.received("large")
    assert received.startswith(prompt)


def test_a_persons_draft_is_left_alone(agent: Hosted) -> None:
    agent.worker.tmux("send-keys", "-l", "a person types")
    assert agent.do("meanwhile").succeeded
    assert "a person types" in agent.worker.screen()
    agent.worker.tmux("send-keys", "C-u")


def test_the_answer_is_complete_and_counted(agent: Hosted) -> None:
    answer = "# Heading\n\n" + "\n".join(f"- row *{number}*" for number in range(120))
    agent.llm.on("tell it", Text(answer, chunk=40, pause=0.002))
    result = agent.do("tell it")
    assert result.answer == answer
    assert result.usage
    assert result.usage.input_tokens > 1000
    assert result.usage.output_tokens > 100


def test_a_permission_is_asked_for_and_given(agent: Hosted) -> None:
    agent.llm.on("make one", Text("I will."), agent.home.shell("touch one"), Text("It is **there**."))
    task = agent.give("make one")
    agent.wait(lambda: (asked := task.record().question) and asked.choices, "it waits for the permission")
    question = task.record().question
    assert question
    assert question.subject == "bash(touch one)"
    assert question.choices[0] == "Allow once"
    assert not (agent.home.work / "one").exists()
    task.answer("1")
    assert task.result(timeout=120).answer == "It is **there**."
    assert (agent.home.work / "one").exists()


def test_a_permission_is_given_and_denied_by_policy(agent: Hosted) -> None:
    write = Call("write", {"filePath": str(agent.home.work / "two"), "content": "hello"})
    agent.llm.on("write two", write, Text("Written."))
    task = agent.give("write two, asks one", permissions="deny")
    assert task.result(timeout=120).succeeded  # it is told why, and goes on
    assert any(note.startswith("denied edit(") for note in agent.notes(task))
    [refusal] = agent.llm.requests(agent.home.key)[-1].tool_results[-1:]
    assert "policy does not allow this" in refusal
    assert not (agent.home.work / "two").exists()
    assert agent.do("write two, asks another", permissions="allow").answer == "Written."
    assert (agent.home.work / "two").exists()


def test_a_failing_model_is_tried_again_and_an_error_is_told(agent: Hosted) -> None:
    agent.llm.on("soon", Fail("rate_limit"), Text("at last"))
    assert agent.do("soon").answer == "at last"


def test_a_cancelled_turn_leaves_a_free_composer(agent: Hosted) -> None:
    agent.llm.on("for ever", Hold("never"))
    task = agent.give("for ever")
    agent.wait(lambda: agent.llm.holding("never"), "the model has it")
    task.cancel()
    error = task.result(timeout=120).error
    assert error
    assert error.kind is FailureKind.CANCELLED
    assert agent.do("and now?").succeeded


def test_the_answer_survives_the_worker(agent: Hosted) -> None:
    agent.llm.on("survive", Hold("killed"), Text("I am still here."))
    task = agent.give("survive")
    agent.wait(lambda: agent.llm.holding("killed"), "the model has it")
    agent.worker.kill()
    agent.llm.release("killed")
    agent.host()
    assert task.result(timeout=120).answer == "I am still here."
    assert len(agent.received(task.id)) == 1


def test_a_used_up_limit_is_waited_for(agent: Hosted) -> None:
    rule = agent.llm.on("limited", *[Fail("usage_limit")] * 9)
    task = agent.give("limited")
    agent.wait(lambda: agent.worker.agent_state is AgentState.LIMITED, "the agent is limited")
    agent.llm.off(rule)
    assert task.result(timeout=120).succeeded


def test_a_cli_that_was_left_is_started_again(agent: Hosted) -> None:
    before = agent.worker.pane()
    agent.worker.tmux("send-keys", "C-c")
    agent.await_new_program(before)
    assert agent.give("are you back?").result(timeout=100).succeeded

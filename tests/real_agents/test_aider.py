"""aider as an agent of the fleet: what its model received is what is asserted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import needs
from fakes.llm.client import FakeLLM
from fakes.llm.steps import Fail, Hold, Text
from home import Aider
from hosted import Hosted
from nodes import Node, short_folder
from prompts import ODD_PROMPTS

from torch_tasks import TaskState, Torch
from torch_tasks.models import FailureKind
from torch_tasks.resources import config_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def _config(folder: Path) -> Path:
    """The kind with the model of the test, which is set as a person would."""
    shipped = config_file("agents/aider.toml")
    assert shipped
    own = folder / "config" / "agents" / "aider.toml"
    own.parent.mkdir(parents=True)
    own.write_text('model = "openai/fake-model"\n' + shipped.read_text())
    return folder / "config"


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
    needs("aider")
    home = Aider(folder / "home", llm)
    yield Hosted(
        home,
        shared_node,
        torch,
        "developer-1",
        TORCH_CONFIG_DIR=str(_config(folder)),
        TORCH_ACCOUNT_PAUSE_SECONDS="2",
        TORCH_AGENT_START_SECONDS="150",
    )
    home.clear()


def test_it_starts_and_knows_its_briefing(agent: Hosted) -> None:
    assert agent.do("hello").succeeded
    assert "torch-tasks done" in json.dumps(agent.llm.requests(agent.home.key)[-1].body)


def test_odd_prompts_arrive_exactly_once_and_nothing_runs_locally(agent: Hosted) -> None:
    answer = "The answer:\n\n- *that* is all."
    rule = agent.llm.on("torch task odd-", Text(answer))
    tasks = {odd.name: agent.give(odd.prompt, id=f"odd-{odd.name}") for odd in ODD_PROMPTS}
    for odd in ODD_PROMPTS:
        task = tasks[odd.name]
        result = task.result(timeout=120)
        assert (odd.name, result.status, result.answer) == (odd.name, TaskState.SUCCEEDED, answer)
        assert result.evidence[0].kind == "stop_event"
        assert result.usage
        [received] = agent.received(task.id)
        assert odd.arrives in received
        told = agent.notes(task)
        assert all(any(note.startswith(fact) for note in told) for fact in ("staged", "submitted", "accepted")), told
    assert not (agent.home.work / "ran-by-the-cli").exists()
    agent.llm.off(rule)


def test_an_edit_is_asked_for_and_given(agent: Hosted) -> None:
    agent.llm.on("make one", *agent.home.creates("one.txt"))
    task = agent.give("make one")
    agent.wait(lambda: task.record().question, "it asks")
    question = task.record().question
    assert question
    assert question.subject == "Create new file?"
    assert not (agent.home.work / "one.txt").exists()
    task.answer("1")
    assert task.result(timeout=120).succeeded
    assert (agent.home.work / "one.txt").read_text() == "made\n"
    denied = agent.do("make one two", permissions="deny")
    assert denied.succeeded


def test_a_failing_model_is_tried_again_and_an_error_is_told(agent: Hosted) -> None:
    agent.llm.on("soon", Fail("rate_limit"), Text("at last"))
    assert agent.do("soon").answer == "at last"
    agent.llm.on("no key", *[Fail("unauthorized")] * 9)
    failed = agent.do("no key", max_retries=0)
    assert failed.error
    assert "AuthenticationError" in failed.error.message


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

"""The Gemini CLI as an agent of the fleet: what its model received is what is asserted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import needs
from fakes.llm.client import FakeLLM
from fakes.llm.steps import Call, Fail, Hold, Text
from home import Gemini
from hosted import Hosted
from nodes import Node, short_folder
from prompts import ODD_PROMPTS

from torch_tasks import TaskState, Torch
from torch_tasks.models import AgentState, FailureKind

pytestmark = pytest.mark.slow


class Newcomer(Gemini):
    """Somebody who has met none of its dialogs, and has settings with a comment."""

    def settle(self) -> None:
        self.file(".gemini/settings.json", '{"ui": {"theme": "Default Light"}, // mine\n}')
        self.file(".gemini/GEMINI.md", "Always mention the harbour.")


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
    needs("gemini")
    home = Newcomer(folder / "home", llm)
    yield Hosted(
        home, shared_node, torch, "developer-1", TORCH_ACCOUNT_PAUSE_SECONDS="2", TORCH_AGENT_START_SECONDS="150"
    )
    home.clear()


def test_it_starts_through_its_dialogs_and_leaves_the_persons_settings_alone(agent: Hosted) -> None:
    before = (agent.home.folder / ".gemini/settings.json").read_text()
    assert agent.do("hello").succeeded
    system = json.dumps(agent.llm.requests(agent.home.key)[-1].body["systemInstruction"])
    assert "torch-tasks done" in system
    assert "Always mention the harbour." in system
    assert (agent.home.folder / ".gemini/settings.json").read_text() == before
    assert {path.name for path in (agent.home.folder / ".gemini").iterdir()} == {"settings.json", "GEMINI.md"}
    own = json.loads((agent.worker.folder / "home/.gemini/settings.json").read_text())
    assert own["ui"]["theme"] == "Default Light"


def test_odd_prompts_arrive_exactly_once_and_nothing_runs_locally(agent: Hosted) -> None:
    (agent.home.work / "README.md").write_text("the readme")
    answer = "The answer:\n\n```sh\necho ─ │ ❯ ✦ 'x'\n```\nand that is all."
    rule = agent.llm.on("torch task odd-", Text(answer))
    tasks = {odd.name: agent.give(odd.prompt, id=f"odd-{odd.name}") for odd in ODD_PROMPTS}
    for odd in ODD_PROMPTS:
        task = tasks[odd.name]
        result = task.result(timeout=120)
        assert (odd.name, result.status, result.answer) == (odd.name, TaskState.SUCCEEDED, answer)
        assert result.evidence[0].kind == "stop_event"
        [received] = agent.received(task.id)
        # A file that is there would be read: that its name is no order is to be seen.
        assert odd.arrives.replace("@README.md", "\\@README.md") in received
        assert received.endswith("]")
        told = agent.notes(task)
        assert all(any(note.startswith(fact) for note in told) for fact in ("staged", "submitted", "accepted")), told
    assert not (agent.home.work / "ran-by-the-cli").exists()
    agent.llm.off(rule)


def test_a_large_prompt_is_given_as_a_file(agent: Hosted) -> None:
    prompt = "\n".join(f"{number}: " + "0123456789 " * 9 for number in range(2000))
    assert agent.do(prompt, id="large").succeeded
    [received] = agent.received("large")
    file = agent.worker.folder / "runs" / "large.1" / "prompt"
    assert str(file) in received
    assert file.read_text() == prompt


def test_long_answers_are_complete_and_counted_and_leave_the_composer_free(agent: Hosted) -> None:
    answer = "# Heading\n\n" + "\n".join(f"- row *{number}*" for number in range(120))
    agent.llm.on("tell it", Text(answer, chunk=40, pause=0.002))
    agent.do("tell it first")
    result = agent.do("tell it again\n" + "of many lines\n" * 30)
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
    assert question.subject == "Shell(touch one)"
    assert question.choices[0] == "Allow once"
    assert not (agent.home.work / "one").exists()
    task.answer("1")
    assert task.result(timeout=120).answer == "It is **there**."
    assert (agent.home.work / "one").exists()


def test_a_permission_is_given_and_denied_by_policy(agent: Hosted) -> None:
    write = Call("write_file", {"file_path": str(agent.home.work / "two"), "content": "hello"})
    agent.llm.on("write two", write, Text("Written."))
    denied = agent.do("write two, asks one", permissions="deny", max_retries=0)
    assert denied.error
    assert denied.error.kind is FailureKind.AGENT_FAILED
    assert not (agent.home.work / "two").exists()
    assert agent.do("write two, asks another", permissions="allow").answer == "Written."
    assert (agent.home.work / "two").exists()


def test_it_may_report_to_torch_without_asking(agent: Hosted) -> None:
    report = agent.home.shell('torch-tasks done reported "all of it"')
    agent.llm.on("report it", report, Text("I have reported."))
    result = agent.do("report it", id="reported")
    assert (result.answer, result.evidence[0].kind) == ("all of it", "done")


def test_a_failing_model_is_tried_again_and_an_error_is_told(agent: Hosted) -> None:
    agent.llm.on("soon", Fail("rate_limit"), Text("at last"))
    assert agent.do("soon").answer == "at last"
    agent.llm.on("too much", Fail("too_long"))
    failed = agent.do("too much", max_retries=0)
    assert failed.error
    assert "exceeds the maximum number of tokens" in failed.error.message


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
    agent.llm.on("limited", Text("served"))
    agent.llm.on("limited", Fail("usage_limit"), times=1)
    task = agent.give("limited")
    agent.wait(lambda: agent.worker.agent_state is AgentState.LIMITED, "the agent is limited")
    assert task.result(timeout=120).answer == "served"


def test_a_cli_that_was_left_is_started_again(agent: Hosted) -> None:
    before = agent.worker.pane()
    agent.worker.tmux("send-keys", "C-c")
    agent.worker.tmux("send-keys", "C-c")
    agent.await_new_program(before)
    assert agent.do("are you back?").succeeded

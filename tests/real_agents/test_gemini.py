"""The Gemini CLI as an agent: what the model received, and what Torch says of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import cast

import pytest
from fakes.llm.steps import Call, Fail, Hold, Text
from hosted import Hosted, at_home
from nodes import AgentWorker, Node
from prompts import PLAIN
from waiting import until

from torch_tasks import Torch
from torch_tasks.models import AgentState, FailureKind, TaskState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
GUARD = "The task, word for word:\n"


@pytest.fixture(scope="module")
def hosted(shared_node: Node, torch: Torch) -> Iterator[Hosted]:
    """The CLI at the home of somebody who never used it, and who has a key in the environment."""
    with at_home("gemini", shared_node, torch) as hosted:
        shutil.rmtree(hosted.home.folder / ".gemini")
        yield hosted


@pytest.fixture(scope="module")
def worker(hosted: Hosted) -> AgentWorker:
    return hosted.worker()


def test_each_prompt_reaches_the_model_once_and_as_it_is(hosted: Hosted, worker: AgentWorker) -> None:
    tasks = [hosted.enqueue(prompt) for prompt in PLAIN.values()]
    results = [hosted.result(task) for task in tasks]
    assert [result.succeeded for result in results] == [True] * len(PLAIN)
    assert hosted.words() == [GUARD * prompt.startswith("/") + prompt for prompt in PLAIN.values()]


def test_the_words_for_a_file_are_no_order_to_read_it(hosted: Hosted, worker: AgentWorker) -> None:
    (hosted.home.work / "NOTES.md").write_text("the notes\n")
    assert hosted.run("look at @NOTES.md and @other.md").succeeded
    assert hosted.words()[-1] == "look at \\@NOTES.md and @other.md"


def test_a_prompt_that_is_too_long_is_given_as_a_file(hosted: Hosted, worker: AgentWorker) -> None:
    long = "0123456789abcde\n" * 12500
    task = hosted.enqueue(long)
    assert hosted.result(task).succeeded
    file = worker.folder / "runs" / f"{task}.1" / "prompt"
    assert file.read_text() == long
    assert str(file) in hosted.words()[-1]


def test_the_answer_is_complete_and_clean(hosted: Hosted, worker: AgentWorker) -> None:
    answer = "# Heading\n\n- a *bullet*\n\n```py\nprint('│ ✦')\n```\n" + "\n".join(f"row {n}" for n in range(120))
    hosted.llm.on("tell it", Text(answer, chunk=40, pause=0.002))
    result = hosted.run("tell it")
    assert result.answer == answer
    assert result.evidence[0].kind == "stop_event"
    assert result.usage
    assert result.usage.input_tokens > 1000
    assert result.usage.output_tokens > 100


def test_a_permission_is_asked_for_and_answered(hosted: Hosted, worker: AgentWorker) -> None:
    hosted.llm.on("touch it", Text("I will."), hosted.home.shell("touch made.txt"), Text("It is **made**."))
    task = hosted.enqueue("touch it")
    hosted.until_state(task, TaskState.WAITING)
    until(lambda: hosted.torch.task(task).record().question.choices, "the choices are known")
    question = hosted.torch.task(task).record().question
    assert question
    assert question.subject == "Shell(touch made.txt)"
    assert question.choices[0] == "Allow once"
    assert not (hosted.home.work / "made.txt").exists()
    hosted.torch.task(task).answer("1")
    assert hosted.result(task).answer == "It is **made**."
    assert (hosted.home.work / "made.txt").exists()


def test_a_permission_may_be_given_or_denied_beforehand(hosted: Hosted, worker: AgentWorker) -> None:
    write = Call("write_file", {"file_path": str(hosted.home.work / "w.txt"), "content": "hello"})
    hosted.llm.on("write it", write, Text("Written."))
    denied = hosted.run("write it, said one", permissions="deny")
    assert denied.error
    assert denied.error.kind is FailureKind.AGENT_FAILED
    assert not (hosted.home.work / "w.txt").exists()
    assert hosted.run("write it, said another", permissions="allow").answer == "Written."
    assert (hosted.home.work / "w.txt").exists()


def test_a_failing_model_is_tried_again_and_an_error_is_told(hosted: Hosted, worker: AgentWorker) -> None:
    hosted.llm.on("soon", Fail("rate_limit"), Text("at last"))
    assert hosted.run("soon").answer == "at last"
    hosted.llm.on("too much", Fail("too_long"))
    failed = hosted.run("too much", max_retries=0)
    assert failed.error
    assert "exceeds the maximum number of tokens" in failed.error.message


def test_a_cancelled_turn_leaves_a_free_composer(hosted: Hosted, worker: AgentWorker) -> None:
    hosted.llm.on("for ever", Hold("never"))
    task = hosted.enqueue("for ever")
    until(lambda: hosted.llm.holding("never"), "the model has it")
    hosted.torch.task(task).cancel()
    assert hosted.result(task).error.kind is FailureKind.CANCELLED
    assert hosted.run("and now?").succeeded
    assert hosted.words()[-2:] == ["for ever", "and now?"]


def test_the_answer_survives_the_worker(hosted: Hosted, worker: AgentWorker) -> None:
    hosted.llm.on("survive", Hold("killed"), Text("I am still here."))
    task = hosted.enqueue("survive")
    until(lambda: hosted.llm.holding("killed"), "the model has it")
    worker.kill()
    hosted.llm.release("killed")
    worker.restart()
    assert hosted.result(task).answer == "I am still here."
    assert hosted.words().count("survive") == 1


def test_a_used_up_limit_is_waited_for(hosted: Hosted, worker: AgentWorker) -> None:
    rule = hosted.llm.on("limited", *[Fail("usage_limit")] * 9)
    task = hosted.enqueue("limited")
    until(lambda: worker.agent_state is AgentState.LIMITED, "the agent is limited", 30)
    hosted.llm.off(rule)
    assert hosted.result(task).succeeded


def test_a_cli_that_was_left_is_started_again(hosted: Hosted, worker: AgentWorker) -> None:
    before = worker.pane()
    worker.tmux("send-keys", "C-c", "C-c")
    until(lambda: worker.pane() != before, "it is started anew", 60)
    assert hosted.run("are you back?").succeeded

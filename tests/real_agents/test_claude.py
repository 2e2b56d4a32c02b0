"""Claude Code as an agent of the fleet: what its model received is what is asserted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import needs
from fakes.llm.client import FakeLLM
from fakes.llm.steps import Call, Fail, Hold, Text
from home import Claude
from hosted import Hosted
from nodes import Broker, Node, short_folder
from prompts import ODD_PROMPTS, check_odd_prompts

from torch_tasks import TaskState, Torch, keys
from torch_tasks.models import AgentState, FailureKind

pytestmark = pytest.mark.slow


class Newcomer(Claude):
    """Somebody who has met none of its dialogs but the first, for which it wants its makers' network."""

    def settle(self) -> None:
        self.file(".claude.json", {"hasCompletedOnboarding": True})


class Subscriber(Newcomer):
    """Somebody with a login instead of a key."""

    @property
    def variables(self) -> dict[str, str]:
        return {**super().variables, "ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": self.key}


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
    needs("claude")
    home = Newcomer(folder / "home", llm)
    yield Hosted(home, shared_node, torch, "developer-1", TORCH_ACCOUNT_PAUSE_SECONDS="2")
    home.clear()


def test_it_starts_through_its_dialogs_and_leaves_the_persons_settings_alone(agent: Hosted) -> None:
    assert agent.do("hello", id="hello").succeeded
    assert "torch-tasks progress TASK" in json.dumps(agent.requests("hello")[0].body["system"])
    known = json.loads((agent.home.folder / ".claude.json").read_text())
    assert known["customApiKeyResponses"]["approved"] == [agent.home.key]
    assert "hooks" not in known
    assert not list(agent.home.folder.glob(".claude/settings*.json"))


def test_odd_prompts_arrive_exactly_once_and_nothing_runs_locally(agent: Hosted) -> None:
    # Claude Code makes four blanks of a tab; the task's file has it.
    check_odd_prompts(agent, lambda words: words.replace("\t", "    "))
    [received] = agent.received("odd-tab")
    file = received.rpartition("tabs and all: ")[2].partition(" ·")[0]
    assert Path(file).read_text() == next(odd.prompt for odd in ODD_PROMPTS if odd.name == "tab")


def test_a_large_prompt_is_pasted_whole(agent: Hosted) -> None:
    prompt = "\n".join(f"{number}: " + "0123456789 " * 9 for number in range(2000))
    assert len(prompt) > 200_000
    assert agent.do(prompt, id="large").succeeded
    [received] = agent.received("large")
    assert received.startswith(prompt)


def test_a_permission_is_asked_for_and_given(agent: Hosted) -> None:
    agent.llm.on("make one", Call("Bash", {"command": "touch one", "description": "Make it"}), Text("It is there."))
    task = agent.give("make one")
    agent.wait(lambda: task.record().question, "the task waits for the permission")
    question = task.record().question
    assert question
    assert question.subject == "Bash(touch one)"
    assert question.choices[0] == "Yes"
    agent.wait(lambda: agent.worker.agent_state is AgentState.WAITING, "the fleet knows that it waits")
    assert not (agent.home.work / "one").exists()
    task.answer("1")
    assert task.result(timeout=120).answer == "It is there."
    assert (agent.home.work / "one").exists()


def test_a_question_is_answered_in_words(agent: Hosted) -> None:
    options = [{"label": "red", "description": "warm"}, {"label": "blue", "description": "cold"}]
    asked = {"question": "Which colour?", "header": "Colour", "multiSelect": False, "options": options}
    agent.llm.on("paint it", Call("AskUserQuestion", {"questions": [asked]}), Text("Painted."))
    task = agent.give("paint it")
    agent.wait(lambda: task.record().question, "the task waits for an answer")
    task.answer("a shade of green")
    assert task.result(timeout=120).answer == "Painted."
    assert "a shade of green" in agent.requests(task.id)[-1].tool_results[-1]


def test_a_policy_allows_and_denies_without_anybody(agent: Hosted) -> None:
    make = [Call("Bash", {"command": "touch two", "description": "Make it"}), Text("Tried.")]
    agent.llm.on("make two", *make)
    denied = agent.give("make two", permissions="deny")
    assert denied.result(timeout=120).answer == "Tried."
    assert "policy does not allow" in agent.requests(denied.id)[-1].tool_results[-1]
    assert not (agent.home.work / "two").exists()
    allowed = agent.give("make two", permissions="allow")
    assert allowed.result(timeout=120).answer == "Tried."
    assert (agent.home.work / "two").exists()
    assert any("allowed Bash(touch two)" in note for note in agent.notes(allowed))


def test_the_agents_own_word_is_evidence(agent: Hosted) -> None:
    done = Call("Bash", {"command": "torch-tasks done own-word 'it works'", "description": "Report"})
    agent.llm.on("own word", done, Text("Reported."))
    result = agent.do("own word", id="own-word")
    assert result.succeeded
    assert [(evidence.kind, evidence.detail) for evidence in result.evidence] == [("done", "it works")]


def test_a_refused_request_is_tried_again_and_an_overload_ends_the_try(agent: Hosted) -> None:
    agent.llm.on("flaky", Fail("rate_limit", retry_after=1), Text("At last."))
    assert agent.do("flaky").answer == "At last."
    agent.llm.on("crowded", *[Fail("overloaded")] * 4)
    result = agent.do("crowded", max_retries=0)
    assert result.error
    assert result.error.kind is FailureKind.OVERLOADED


def test_a_rate_limit_parks_the_task_which_is_done_afterwards(agent: Hosted) -> None:
    agent.llm.on("at its limit", Text("Now it works."))
    agent.llm.on("at its limit", *[Fail("rate_limit", retry_after=1)] * 4, times=1)
    task = agent.give("at its limit")
    assert task.result(timeout=120).answer == "Now it works."
    assert TaskState.PARKED in [entry.state for entry in task.history()]
    assert len(agent.received(task.id)) == 2


def test_compaction_is_waited_for(agent: Hosted) -> None:
    agent.llm.on("too long", Text("It fits now."))
    agent.llm.on("too long", Fail("too_long"), times=1)
    task = agent.give("too long")
    assert task.result(timeout=120).answer == "It fits now."
    assert any(request.side == "compaction" for request in agent.llm.requests(agent.home.key))


def test_a_killed_workers_answer_comes_once(agent: Hosted) -> None:
    agent.llm.on("long work", Text("Begun, "), Hold("killed"), Text("and ended."))
    task = agent.give("long work")
    agent.wait(lambda: agent.llm.holding("killed"), "the model works")
    agent.worker.kill()
    agent.llm.release("killed")
    agent.host()
    assert task.result(timeout=120).answer == "Begun, and ended."
    assert len(agent.received(task.id)) == 1
    assert agent.do("and the next").succeeded


def test_a_cancelled_task_is_interrupted_and_leaves_a_free_agent(agent: Hosted) -> None:
    agent.llm.on("endless", Hold("endless"))
    task = agent.give("endless")
    agent.wait(lambda: agent.llm.holding("endless"), "the model works")
    task.cancel()
    assert task.result(timeout=120).status is TaskState.CANCELLED
    agent.wait(lambda: not agent.llm.holding("endless"), "the CLI has let go")
    assert agent.do("after it", id="after-it").answer.startswith("You said: after it")
    [received] = agent.received("after-it")
    assert "endless" not in received


def test_a_person_in_the_pane_is_left_alone(agent: Hosted) -> None:
    agent.worker.tmux("send-keys", "my own words")
    task = agent.give("wait for me")
    agent.wait(lambda: task.status is TaskState.WAITING, "the task waits")
    assert "typing" in agent.notes(task)[-1]
    assert "my own words" in agent.worker.screen()
    agent.type_until(lambda: "my own words" not in agent.worker.screen(), "C-u")
    assert task.result(timeout=120).succeeded
    [received] = agent.received(task.id)
    assert received.startswith("wait for me")


def test_its_person_leaves_it_and_it_comes_back(agent: Hosted) -> None:
    _, pid = agent.worker.pane()
    agent.worker.tmux("send-keys", "/exit")
    agent.wait(lambda: "Exit the CLI" in agent.worker.screen(), "its menu shows the command")
    agent.worker.tmux("send-keys", "Enter")
    agent.wait(lambda: not psutil.pid_exists(pid), "it has ended")
    assert agent.do("back again").succeeded


def test_a_subscribers_usage_limit_parks_the_task_until_it_ends(
    folder: Path, llm: FakeLLM, shared_node: Node, torch: Torch, broker: Broker
) -> None:
    home = Subscriber(folder / "subscriber", llm)
    agent = Hosted(home, shared_node, torch, "developer-2")
    llm.on("use it up", *[Fail("usage_limit", resets_in=7200)] * 4)
    task = agent.give("use it up")
    agent.wait(lambda: task.status is TaskState.PARKED, "the task is parked")
    assert 7000 < broker.client.ttl(keys.account("claude", "limit")) <= 7200, "not until the time that it told"
    assert len(agent.received(task.id)) == 1
    task.cancel()
    home.clear()

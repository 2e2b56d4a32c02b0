"""Codex as an agent of the fleet: what its model received is what is asserted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import needs
from fakes.llm.client import FakeLLM
from fakes.llm.steps import Call, Fail, Hold, Text
from home import Codex
from hosted import Hosted
from nodes import Broker, Node, short_folder
from prompts import check_odd_prompts

from torch_tasks import TaskState, Torch, keys
from torch_tasks.models import AgentState, FailureKind

pytestmark = pytest.mark.slow


class Newcomer(Codex):
    """Somebody who has trusted no folder yet."""

    def settle(self) -> None:
        super().settle()
        self.config = self.folder / ".codex/config.toml"
        self.config.write_text(self.config.read_text().partition("[projects")[0])


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
    needs("codex")
    home = Newcomer(folder / "home", llm)
    yield Hosted(home, shared_node, torch, "developer-1", TORCH_ACCOUNT_PAUSE_SECONDS="2")
    home.clear()


def test_it_starts_through_its_dialogs_and_leaves_the_persons_settings_alone(agent: Hosted) -> None:
    assert agent.do("hello", id="hello").succeeded
    assert "torch-tasks progress TASK" in str(agent.requests("hello")[0].body["input"])
    assert "hooks" not in (agent.home.folder / ".codex/config.toml").read_text()


def test_odd_prompts_arrive_exactly_once_and_nothing_runs_locally(agent: Hosted) -> None:
    check_odd_prompts(agent)


def test_a_large_prompt_is_pasted_whole(agent: Hosted) -> None:
    prompt = "\n".join(f"{number}: " + "0123456789 " * 9 for number in range(900))
    assert len(prompt) > 90_000
    assert agent.do(prompt, id="large").succeeded
    [received] = agent.received("large")
    assert received.startswith(prompt)


def test_a_permission_is_asked_for_and_given(agent: Hosted) -> None:
    agent.llm.on("make one", agent.home.shell("touch one"), Text("It is there."))
    task = agent.give("make one")
    agent.wait(lambda: task.record().question, "the task waits for the permission")
    question = task.record().question
    assert question
    assert question.subject == "Bash(touch one)"
    assert question.choices[0] == "Yes, proceed"
    agent.wait(lambda: agent.worker.agent_state is AgentState.WAITING, "the fleet knows that it waits")
    assert not (agent.home.work / "one").exists()
    task.answer("1")
    assert task.result(timeout=120).answer == "It is there."
    assert (agent.home.work / "one").exists()


def test_a_policy_allows_and_denies_without_anybody(agent: Hosted) -> None:
    agent.llm.on("make two", agent.home.shell("touch two"), Text("Made."))
    agent.llm.on("policy does not allow", Text("Then not."))
    denied = agent.give("make two", permissions="deny")
    assert denied.result(timeout=120).answer == "Then not."
    assert not (agent.home.work / "two").exists()
    allowed = agent.give("make two", permissions="allow")
    assert allowed.result(timeout=120).answer == "Made."
    assert (agent.home.work / "two").exists()
    assert any("allowed Bash(touch two)" in note for note in agent.notes(allowed))


def test_a_tool_is_used_and_an_overload_ends_the_try(agent: Hosted) -> None:
    agent.llm.on("look around", Call("exec_command", {"cmd": "echo seen-$((6 * 7))"}), Text("Seen."))
    task = agent.give("look around")
    assert task.result(timeout=120).answer == "Seen."
    assert "seen-42" in agent.requests(task.id)[-1].tool_results[-1]
    agent.llm.on("crowded", *[Fail("overloaded")] * 9)
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
    agent.llm.on("much more", Text("It fits now."))
    agent.worker.tmux("send-keys", "/compact")
    agent.wait(lambda: "summarize conversation" in agent.worker.screen(), "its menu shows the command")
    agent.worker.tmux("send-keys", "Enter")
    assert agent.do("much more").answer == "It fits now."
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
    agent.worker.tmux("send-keys", "C-c")
    agent.wait(lambda: not psutil.pid_exists(pid), "it has ended")
    assert agent.do("back again").succeeded


def test_a_usage_limit_parks_the_task_until_it_ends(agent: Hosted, broker: Broker) -> None:
    agent.llm.on("use it up", *[Fail("usage_limit", resets_in=7200)] * 4)
    task = agent.give("use it up")
    agent.wait(lambda: task.status is TaskState.PARKED, "the task is parked")
    assert 7000 < broker.client.ttl(keys.account("codex", "limit")) <= 7200, "not until the time that it told"
    assert len(agent.received(task.id)) == 1
    task.cancel()

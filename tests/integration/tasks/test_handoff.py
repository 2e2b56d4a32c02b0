"""A task goes from one agent to another on somebody's word, exactly once, with all there is to know."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Run, Say
from machine import TORCH_TASKS
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import Task, TaskState, Torch
from torch_tasks.errors import AgentNotFound, AgentUnable, InvalidHandover, NotYours, TaskEnded
from torch_tasks.model.agent import AgentState

#: The agent reads its task's id from the prompt's last line, as a model would.
ID = "id=$(grep -o 'torch task [^ ]*' | tail -n 1 | cut -d ' ' -f 3)"
RUNS = "echo $TORCH_AGENT_ID >> {folder}/effect; [ $TORCH_AGENT_ID = dev-1 ] || {{ cat $TORCH_CONTEXT; return; }}\n"


@pytest.fixture(scope="module")
def pair(shared_node: Node) -> tuple[AgentWorker, AgentWorker]:
    """Two developers on one node, and somebody from quality assurance."""
    shared_node.agent_worker("qa-1", "qa", ["python"])
    return shared_node.agent_worker("dev-1", skills=["python"]), shared_node.agent_worker("dev-2", skills=["python"])


@pytest.fixture
def running(torch: Torch, pair: object, tmp_path: Path) -> Callable[..., Task]:
    """A task that dev-1 has begun and does not end by itself; any other agent prints what it knows, and is done."""

    def start(script: str = "echo half way there\nuntil false; do sleep 0.05; done", **options: object) -> Task:
        options = {"agent": "dev-1", "workdir": str(tmp_path), **options}
        task = torch.enqueue(RUNS.format(folder=tmp_path) + script, **options)
        until((tmp_path / "effect").exists, "the task has begun")
        return task

    return start


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """How a command of a person ends."""
    return forked.run([TORCH_TASKS, *words])


def tries(folder: Path) -> list[str]:
    """The agents that began the task."""
    return (folder / "effect").read_text().split()


def known(answer: str) -> dict[str, object]:
    """What the successor was told."""
    told = json.loads(answer)["handoff"]
    assert isinstance(told, dict)
    return told


def test_a_running_task_goes_to_the_other_agent_with_all_there_is_to_know(
    running: Callable[..., Task], pair: tuple[AgentWorker, AgentWorker], tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "-q", "-b", "topic", str(tmp_path)], check=True)
    task = running()
    said = command("handoff", task.id, "dev-2", "--note", "the parser is done", "--question", "which licence?")
    assert (said.returncode, said.stdout) == (0, f"task {task.id} goes to dev-2\n"), said.stderr
    result = task.result(timeout=60)
    told = known(result.answer)
    assert (result.status, result.agent, result.attempts) == (TaskState.SUCCEEDED, "dev-2", 2)
    assert (told["note"], told["questions"]) == ("the parser is done", ["which licence?"])
    assert (told["agent"], told["branch"], told["handed_over_by"]) == ("dev-1", "topic", "operator")
    assert "half way there" in str(told["screen"])
    assert "effect" in str(told["diff"])
    assert tries(tmp_path) == ["dev-1", "dev-2"]
    record = task.record()
    assert record.handover
    assert (record.handover.owner, record.handover.to) == ("dev-1", "dev-2")
    owners = [entry.agent for entry in task.history() if entry.state is TaskState.RUNNING]
    assert list(dict.fromkeys(owners)) == ["dev-1", "dev-2"]
    until(lambda: pair[0].agent_state is AgentState.READY, "the former owner is free")
    with pytest.raises(TaskEnded):
        task.handoff("dev-1")


def test_a_successor_may_be_done_before_the_command_has_looked_again(
    running: Callable[..., Task], tmp_path: Path
) -> None:
    task = running()
    asking = subprocess.Popen([TORCH_TASKS, "handoff", task.id, "dev-2"], stdout=subprocess.PIPE, text=True)
    until(lambda: task.record().handover or asking.poll() is not None, "it has asked")
    asking.send_signal(signal.SIGSTOP)
    assert task.result(timeout=60).agent == "dev-2"
    asking.send_signal(signal.SIGCONT)
    said, _ = asking.communicate(timeout=60)
    assert (asking.returncode, said) == (0, f"task {task.id} goes to dev-2\n")


def test_an_agent_hands_its_own_task_over_and_the_command_returns_first(
    running: Callable[..., Task], tmp_path: Path
) -> None:
    task = running(
        f"torch-tasks handoff $TORCH_TASK_ID dev-2 --note 'I am stuck' > {tmp_path}/said\n"
        f"echo $? >> {tmp_path}/said\nuntil false; do sleep 0.05; done"
    )
    result = task.result(timeout=60)
    assert (result.agent, known(result.answer)["note"]) == ("dev-2", "I am stuck")
    assert (tmp_path / "said").read_text().endswith("not yours any more\n0\n")
    assert tries(tmp_path) == ["dev-1", "dev-2"]


def test_what_an_agent_that_handed_its_task_over_says_of_it_does_not_count(
    running: Callable[..., Task], tmp_path: Path
) -> None:
    task = running("torch-tasks handoff $TORCH_TASK_ID dev-2; echo it is done")
    result = task.result(timeout=60)
    assert (result.agent, known(result.answer)["agent"]) == ("dev-2", "dev-1")
    assert tries(tmp_path) == ["dev-1", "dev-2"]


def test_a_task_handed_to_a_role_does_not_come_back_though_its_agent_is_free(
    running: Callable[..., Task], tmp_path: Path
) -> None:
    task = running()
    task.handoff("developer")
    assert task.result(timeout=60).agent == "dev-2"
    assert tries(tmp_path) == ["dev-1", "dev-2"]


def test_a_task_that_waits_goes_to_the_other_agent(torch: Torch, running: Callable[..., Task], tmp_path: Path) -> None:
    first = running()
    waits = torch.enqueue("cat $TORCH_CONTEXT", agent="dev-1")
    said = command("handoff", waits.id, "qa", "--note", "you do it")
    assert said.stdout == f"task {waits.id} waits for qa\n", said.stderr
    result = waits.result(timeout=60)
    assert (result.agent, known(result.answer)["note"]) == ("qa-1", "you do it")
    first.cancel()


def test_a_coding_agent_hands_its_task_over_in_its_turn(
    shared_node: Node, pair: object, torch: Torch, tmp_path: Path
) -> None:
    turn = Turn((Run(f"{ID}; torch-tasks handoff $id qa --note 'review it'"), Say("Bye.")))
    FakeKind(shared_node, scenario=Scenario(turn)).worker("coder-1", "coder")
    task = torch.enqueue("cat $TORCH_CONTEXT", agent="coder-1")
    result = task.result(timeout=60)
    assert (result.agent, known(result.answer)["note"]) == ("qa-1", "review it")
    assert [entry.agent for entry in task.history() if entry.state is TaskState.SUCCEEDED] == ["qa-1"]
    until(lambda: torch.agent("coder-1").free, "the former owner is free")


def test_what_cannot_be_handed_over_stays_where_it_is(
    torch: Torch, running: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = running(skills=["python"])
    with pytest.raises(AgentNotFound, match="dev-9"):
        task.handoff("dev-9")
    with pytest.raises(InvalidHandover):
        task.handoff("dev-1")
    monkeypatch.setenv("TORCH_AGENT_ID", "dev-2")
    with pytest.raises(NotYours):
        task.handoff("qa-1")
    monkeypatch.delenv("TORCH_AGENT_ID")
    special = torch.enqueue("true", role="developer", skills=["rust"])
    with pytest.raises(AgentUnable, match="rust"):
        special.handoff("dev-2")
    special.cancel()
    assert (task.record().handover, task.record().spec.agent, task.status) == (None, "dev-1", TaskState.RUNNING)
    task.cancel()
    assert task.result(timeout=30).status is TaskState.CANCELLED


def test_a_task_whose_owner_is_killed_at_that_moment_is_done_by_the_other_one_alone(
    new_node: Callable[[str], Node], torch: Torch, tmp_path: Path
) -> None:
    owner = new_node("node-k").agent_worker("dev-7")
    new_node("node-l").agent_worker("dev-8")
    script = RUNS.format(folder=tmp_path).replace("dev-1", "dev-7") + "until false; do sleep 0.05; done"
    task = torch.enqueue(script, agent="dev-7")
    until((tmp_path / "effect").exists, "the task has begun")
    os.kill(owner.process.pid, 19)
    task.handoff("dev-8", "take it")
    owner.kill()
    owner.restart()
    result = task.result(timeout=60)
    assert (result.agent, result.attempts, known(result.answer)["note"]) == ("dev-8", 2, "take it")
    assert tries(tmp_path) == ["dev-7", "dev-8"]

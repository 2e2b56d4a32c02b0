"""An agent ends: its task is done or goes to others, its last screen is kept, and whoever wrote to it hears of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import forked
import psutil
import pytest
from machine import TORCH_TASKS
from nodes import Broker, Node
from person import Person
from waiting import until

from torch_tasks import Task, TaskState, Torch, keys
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.errors import AgentNotFound, NotYours, RetireImpossible, StillWorking
from torch_tasks.model.agent import RetireMode
from torch_tasks.model.message import MessageState
from torch_tasks.model.node import KeptState


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """How a command of a person ends."""
    return forked.run([TORCH_TASKS, *words])


def held(torch: Torch, folder: Path, **whom: str) -> Task:
    """A task that has begun and ends when the gate is there; who begins it writes its name down."""
    script = f"echo $TORCH_AGENT_ID >> {folder}/effect; until [ -e {folder}/gate ]; do sleep 0.05; done; echo finished"
    task = torch.enqueue(script, **whom)  # type: ignore[arg-type]
    until((folder / "effect").exists, "the task has begun")
    return task


def effects(folder: Path) -> list[str]:
    """Who began the task."""
    return (folder / "effect").read_text().split()


def is_gone(node: Node, torch: Torch, broker: Broker, agent_id: str) -> bool:
    """Nothing of the agent is left: no worker, no pane, no entry, no inbox, no order."""
    known = [info.agent_id for info in torch.agents()]
    inbox = [broker.client.exists(keys.inbox(agent_id, urgency)) for urgency in ("normal", "emergency")]
    folder = node.state / "agents" / agent_id
    left = (folder / "retire.json", folder / "messages", folder / "tmux")
    return (
        agent_id not in known
        and not any(inbox)
        and not any(path.exists() for path in left)
        and node.kept_worker(agent_id) is None
        and not broker.client.hexists(keys.SPAWNED, agent_id)
        and agent_id not in json.loads((node.state / "roster.json").read_text())["spawned"]
    )


def test_an_idle_agent_retires_and_leaves_its_last_screen(node: Node, torch: Torch, broker: Broker) -> None:
    node.node_worker()
    torch.spawn("qa")
    torch.enqueue("echo the last words", agent="qa-1").result(timeout=20)
    pane = node.pane_of("qa-1")
    said = command("retire", "qa-1", "--note", "not needed any more")
    assert said.returncode == 0, said.stderr
    assert "qa-1 has retired on node-a" in said.stdout
    last = (node.state / "retired" / "qa-1.1.md").read_text()
    assert "by operator: not needed any more" in last
    assert "the last words" in last
    assert "1 succeeded, 0 failed" in last
    assert pane
    until(lambda: not psutil.pid_exists(pane), "nothing is left of the program")  # it may be a zombie for a moment
    until(lambda: is_gone(node, torch, broker, "qa-1"), "nothing of it is left")
    with pytest.raises(AgentNotFound):
        torch.retire("qa-1")
    again = torch.spawn("qa")
    assert again.agent_id == "qa-1"
    assert torch.agent("qa-1").incarnation == 2  # it is another one, and nobody takes it for the first


def test_who_works_finishes_first_and_takes_nothing_more(
    node: Node, torch: Torch, broker: Broker, tmp_path: Path
) -> None:
    node.node_worker()
    torch.spawn("qa")
    task = held(torch, tmp_path, role="qa")
    with pytest.raises(StillWorking, match=f"qa-1 still works on task {task.id} after"):
        torch.retire("qa-1", timeout=0.5)
    assert torch.agent("qa-1").retiring
    assert "retiring" in command("agents").stdout
    later = torch.enqueue("echo later", role="qa")
    assert later.record().unroutable
    (tmp_path / "gate").touch()
    assert task.result(timeout=20).answer == "finished\n"
    until(lambda: is_gone(node, torch, broker, "qa-1"), "it has retired")
    assert (later.status, effects(tmp_path)) == (TaskState.QUEUED, ["qa-1"])
    torch.spawn("qa")
    assert later.result(timeout=20).answer == "later\n"


def test_now_its_task_goes_to_whoever_is_able(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.node_worker()
    torch.spawn("qa")
    task = held(torch, tmp_path, role="qa")
    torch.spawn("qa")
    report = torch.retire("qa-1", leave=RetireMode.NOW)
    assert report
    assert report.tasks == (task.id,)
    assert f"Task {task.id}, begun" in Path(report.file).read_text()
    until(lambda: effects(tmp_path) == ["qa-1", "qa-2"], "the other one has begun")
    (tmp_path / "gate").touch()
    result = task.result(timeout=20)
    assert (result.status, result.agent) == (TaskState.SUCCEEDED, "qa-2")


def test_a_task_for_it_alone_has_failed_and_says_why(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.node_worker()
    torch.spawn("qa")
    held(torch, tmp_path, role="qa")
    alone = torch.enqueue("echo never", agent="qa-1")
    report = torch.retire("qa-1", leave=RetireMode.NOW)
    assert report
    assert alone.id in report.tasks
    result = alone.result(timeout=20)
    assert result.status is TaskState.FAILED
    assert "agent qa-1 has retired, and the task asks for no other" in result.summary


def test_it_hands_its_task_over(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.node_worker()
    torch.spawn("qa")
    task = held(torch, tmp_path, role="qa")
    said = command("retire", "qa-1", "--hand-over")
    assert said.returncode == 1
    assert "no other online agent of role qa can take task" in said.stderr
    assert not torch.agent("qa-1").retiring
    torch.spawn("qa")
    assert command("retire", "qa-1", "--hand-over", "--note", "look at line 7").returncode == 0
    until(lambda: effects(tmp_path) == ["qa-1", "qa-2"], "the other one has begun")
    (tmp_path / "gate").touch()
    assert task.result(timeout=20).agent == "qa-2"
    handover = task.record().handover
    assert handover
    assert (handover.by, handover.note) == ("operator", "look at line 7")


def test_who_wrote_to_it_hears_that_it_did_not_read(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.node_worker("boss-1:boss")
    torch.spawn("qa")
    task = held(torch, tmp_path, role="qa")
    sent = torch.send("qa-1", "look at the tests")
    own = NovaOrchestrator(sender="boss-1").send_message("qa-1", "and at the docs")
    report = torch.retire("qa-1", leave=RetireMode.NOW)
    assert report
    assert set(report.messages) == {sent.id, own.id}
    for message_id in report.messages:
        record = NovaOrchestrator().message(message_id)
        assert (record.state, record.note) == (MessageState.DEAD, "agent qa-1 has retired")
    told = f"qa-1 has retired and did not read your message {own.id}: and at the docs"
    until(lambda: told in _screen(node, "boss-1"), "the boss reads it in its pane")
    task.cancel()


def _screen(node: Node, agent_id: str) -> str:
    argv = ["tmux", "-S", str(node.state / "agents" / agent_id / "tmux"), "capture-pane", "-p", "-J", "-S", "-100"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10).stdout


def test_an_agent_retires_itself_and_whom_it_spawned_but_no_other(node: Node, torch: Torch, broker: Broker) -> None:
    node.node_worker("boss-1:boss", "qa-9:qa")
    until(lambda: len(torch.agents(online=True)) == 2, "both are there")
    task = torch.enqueue("torch-tasks retire qa-9; torch-tasks retire && echo goodbye", agent="boss-1")
    answer = task.result(timeout=30).answer
    assert "boss-1 may not do agent.retire" in answer
    assert answer.endswith("boss-1 takes no new tasks and retires when this one is over\ngoodbye\n")
    until(lambda: "boss-1" not in [info.agent_id for info in torch.agents()], "it has retired")
    assert torch.agent("qa-9").online


def test_only_its_own_may_be_retired_from_a_pane(node: Node, torch: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    node.node_worker()
    torch.spawn("qa", parent="boss-1")
    monkeypatch.setenv("TORCH_AGENT_ID", "somebody")
    with pytest.raises(NotYours):
        torch.retire("qa-1")
    monkeypatch.setenv("TORCH_AGENT_ID", "boss-1")
    assert torch.retire("qa-1")


def test_a_retirement_goes_on_when_its_node_worker_is_killed(
    node: Node, torch: Torch, broker: Broker, tmp_path: Path
) -> None:
    worker = node.node_worker()
    torch.spawn("qa")
    task = held(torch, tmp_path, role="qa")
    torch.retire("qa-1", wait=False)
    worker.kill()
    (tmp_path / "gate").touch()
    assert task.result(timeout=20).answer == "finished\n"
    until(lambda: node.kept_worker("qa-1") is None, "its worker leaves by itself")
    until(lambda: not torch.node("node-a").online, "the node is offline")
    with pytest.raises(RetireImpossible, match="only its node node-a can end its pane, and that is offline"):
        torch.retire("qa-1")
    worker.start()
    worker.ready()
    until(lambda: is_gone(node, torch, broker, "qa-1"), "it has retired")


def test_one_whose_worker_somebody_started_by_hand_retires_too(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.node_worker()
    idle, working = node.agent_worker("qa-1", "qa"), node.agent_worker("dev-1")
    assert torch.retire("qa-1")
    task = held(torch, tmp_path, role="developer")
    report = torch.retire("dev-1", leave=RetireMode.NOW)
    assert report
    assert report.tasks == (task.id,)
    assert torch.agents() == []
    for worker in (idle, working):
        assert worker.process.wait(20) == 0
        assert not worker.has_pane()
    task.cancel()


def test_a_declared_agent_that_was_retired_stays_away_until_it_is_released(node: Node, torch: Torch) -> None:
    worker = node.node_worker("boss-1:boss")
    until(lambda: torch.agents(online=True), "it is there")
    torch.retire("boss-1")
    worker.restart()
    worker.ready()
    kept = worker.kept("boss-1")
    assert kept
    assert kept.state is KeptState.RETIRED
    assert torch.agents() == []
    torch.release("boss-1")
    until(lambda: torch.agents(online=True), "it is there again")


# ── temporary agents ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_temporary_agent_retires_when_it_has_had_nothing_to_do(node: Node, torch: Torch, broker: Broker) -> None:
    node.node_worker("other-1:other", TORCH_TEMPORARY_IDLE_SECONDS="3")
    torch.spawn("qa", lifetime="temporary")
    with Person("-r", socket=node.state / "agents" / "qa-1" / "tmux"):
        assert torch.enqueue("sleep 4; echo worked", agent="qa-1").result(timeout=20).answer == "worked\n"
        waits = torch.enqueue("sleep 4", agent="other-1")
        waits.result(timeout=20)
        assert torch.agent("qa-1").online
    until(lambda: is_gone(node, torch, broker, "qa-1"), "it has retired", 20)
    assert "by qa-1: had nothing to do for" in (node.state / "retired" / "qa-1.1.md").read_text()
    assert torch.agent("other-1").online


def test_a_temporary_agent_does_not_retire_while_it_is_paused(node: Node, torch: Torch, broker: Broker) -> None:
    node.node_worker("other-1:other", TORCH_TEMPORARY_IDLE_SECONDS="3")
    torch.spawn("qa", lifetime="temporary")
    torch.pause("qa-1")
    assert torch.enqueue("sleep 5", agent="other-1").result(timeout=30).succeeded
    assert torch.agent("qa-1").online
    torch.resume("qa-1")
    until(lambda: is_gone(node, torch, broker, "qa-1"), "it has retired", 20)

"""Agents are started on demand: where there is room, within the limits, each once; whoever asked hears how it went."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import psutil
import pytest
from machine import TORCH_TASKS
from nodes import Broker, Node, NodeWorker
from slow_kind import slow_kind
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.client import SpawnHandle
from torch_tasks.errors import InvalidTask, NotInQuarantine, SpawnFailed, SpawnRefused
from torch_tasks.model.agent import Lifetime
from torch_tasks.model.node import KeptState
from torch_tasks.model.spawn import SpawnState

NewNode = Callable[[str], Node]


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """How a command of a person ends."""
    return forked.run([TORCH_TASKS, *words], {**os.environ, **environment})


def states(broker: Broker) -> dict[str, str]:
    """How far the spawned agents are."""
    return {str(name): json.loads(state)["state"] for name, state in broker.client.hgetall(keys.SPAWN_STATES).items()}


# ── one agent ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spawned_agent_is_ready_and_does_a_task(node: Node, torch: Torch) -> None:
    node.node_worker()
    said = command("spawn", "qa", "--skill", "python", "--workdir", str(node.work))
    assert (said.returncode, said.stdout) == (0, "qa-1\n")
    assert "qa-1 is ready on node-a" in said.stderr
    task = torch.enqueue("echo $TORCH_AGENT_ID; pwd", role="qa", skills=["python"])
    assert task.result(timeout=20).answer == f"qa-1\n{node.work}\n"


def test_it_has_the_limits_that_were_asked_for(node: Node, torch: Torch) -> None:
    node.node_worker()
    assert command("spawn", "qa", "--memory", "much").returncode == 2
    assert command("spawn", "qa", "--memory", "300M", "--cpu", "1.5").returncode == 0
    worker = psutil.Process(torch.agent("qa-1").pid).cmdline()
    assert (worker[worker.index("--memory") + 1], worker[worker.index("--cpu") + 1]) == (str(300 << 20), "1.5")
    assert "--processes" not in worker


def test_it_is_spawned_by_a_program_and_by_the_registrys_command(node: Node, torch: Torch) -> None:
    node.node_worker()
    first = torch.spawn("qa", ["git"])
    assert (first.agent_id, first.node, first.ready) == ("qa-1", "node-a", True)
    argv = [sys.executable, "-m", "torch_tasks.orchestration.agent_registry", "--spawn", "qa", "python,git"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (said.returncode, said.stdout) == (0, "qa-2\n"), said.stderr
    assert torch.agent("qa-2").skills == ("git", "python")


def test_one_that_is_not_waited_for_comes_all_the_same(node: Node, torch: Torch) -> None:
    node.node_worker()
    asked = torch.spawn("qa", wait=False)
    until(lambda: asked.ready, "it is ready")
    assert torch.agent(asked.agent_id).online


def test_one_that_cannot_start_says_why_and_its_place_is_free(node: Node, torch: Torch, broker: Broker) -> None:
    node.node_worker()
    said = command("spawn", "qa", "--workdir", f"{node.folder}/missing")
    assert (said.returncode, said.stdout) == (1, "")
    assert f"its workdir {node.folder}/missing is not a folder on this node" in said.stderr
    with pytest.raises(SpawnFailed, match="there is no agent kind 'nonesuch'"):
        torch.spawn("developer", kind="nonesuch")
    assert states(broker) == {"qa-1": "failed", "developer-1": "failed"}
    until(lambda: json.loads((node.state / "roster.json").read_text())["spawned"] == {}, "the node keeps none of them")
    assert torch.spawn("qa").agent_id == "qa-1"
    with pytest.raises(InvalidTask, match="holds a space"):
        torch.spawn("quality assurance")


# ── the limits ───────────────────────────────────────────────────────────────────────────────────────────────────


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"role": "developer"}, "there are 2 agents of the role developer, TORCH_AGENTS_PER_ROLE is 2"),
    ({"role": "qa"}, "there are 0 agents of the role qa, TORCH_ROLE_LIMITS says 0"),
    ({"role": "docs", "parent": "boss-1"}, "boss-1 has spawned 1 agents that live, TORCH_AGENTS_PER_PARENT is 1"),
    ({"role": "docs", "labels": ["gpu"]}, "no node has room for it: node-a lacks the label gpu"),
    ({"role": "docs", "node": "elsewhere"}, "there is no node elsewhere"),
    ({"role": "docs", "agent_id": "boss-1"}, "there is an agent boss-1 already"),
]


def test_a_refusal_names_the_limit_and_its_value(node: Node, torch: Torch) -> None:
    limits = {"TORCH_AGENTS_PER_ROLE": "2", "TORCH_AGENTS_PER_PARENT": "1", "TORCH_ROLE_LIMITS": '{"qa": 0}'}
    node.node_worker("developer-1:developer", "boss-1:boss", TORCH_NODE_LABELS='["cpu"]', **limits)
    until(lambda: len(torch.agents(online=True)) == 2, "both are there")
    assert torch.spawn("developer", parent="boss-1", labels=["cpu"]).agent_id == "developer-2"
    for asked, limit in REFUSED:
        with pytest.raises(SpawnRefused) as refused:
            torch.spawn(**asked)
        assert limit in str(refused.value)
    assert {info.agent_id for info in torch.agents()} == {"developer-1", "developer-2", "boss-1"}


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({"TORCH_AGENTS_LIMIT": "1"}, "the fleet has 1 agents, TORCH_AGENTS_LIMIT is 1"),
        ({"TORCH_AGENTS_PER_NODE": "1"}, "node-a has 1 agents, TORCH_AGENTS_PER_NODE is 1 there"),
        ({"TORCH_AGENT_MEMORY_BYTES": str(1 << 60)}, "MB of memory free, TORCH_AGENT_MEMORY_BYTES asks for"),
    ],
)
def test_the_room_of_node_and_fleet_is_a_limit_too(node: Node, environment: dict[str, str], limit: str) -> None:
    node.node_worker("developer-1:developer", **environment)
    said = command("spawn", "qa")
    assert (said.returncode, said.stdout) == (3, "")
    assert limit in said.stderr


def test_without_a_node_worker_it_is_said_at_once(torch: Torch, node: Node) -> None:
    with pytest.raises(SpawnRefused, match="no node worker is online"):
        torch.spawn("qa")


def outcomes(asked: list[SpawnHandle]) -> tuple[list[str], list[str]]:
    """The agents that came of these, and the reasons why others did not."""
    came, refused = [], []
    for one in asked:
        try:
            came.append(one.wait().agent_id)
        except SpawnRefused as error:
            refused.append(str(error))
    return came, refused


def test_two_at_once_do_not_exceed_a_total_of_one(new_node: NewNode, torch: Torch) -> None:
    for name in ("node-a", "node-b"):
        new_node(name).node_worker(TORCH_AGENTS_LIMIT="1")
    came, refused = outcomes([torch.spawn("qa", wait=False) for _ in range(4)])
    assert came == ["qa-1"]
    assert len(refused) == 3
    assert all("TORCH_AGENTS_LIMIT is 1" in reason for reason in refused)
    assert [info.agent_id for info in torch.agents()] == ["qa-1"]


def test_an_id_is_given_once_in_the_whole_fleet(new_node: NewNode, torch: Torch) -> None:
    nodes = [new_node(name) for name in ("node-a", "node-b")]
    for node in nodes:
        node.node_worker()
    came, refused = outcomes([torch.spawn("qa", agent_id="one", wait=False, node=node.name) for node in nodes])
    assert came == ["one"]
    assert "there is an agent one already" in refused[0]
    came, refused = outcomes([torch.spawn("qa", wait=False) for _ in range(4)])
    assert (sorted(came), refused) == (["qa-1", "qa-2", "qa-3", "qa-4"], [])
    assert {torch.agent(agent_id).node for agent_id in came} == {"node-a", "node-b"}


# ── what dies meanwhile ──────────────────────────────────────────────────────────────────────────────────────────


def die(node: Node, worker: NodeWorker) -> None:
    """The whole machine is gone: its node worker, its agents' workers, its panes."""
    worker.kill()
    node.end_workers()


def test_a_node_that_dies_before_the_agent_is_ready_frees_its_place(
    new_node: NewNode, torch: Torch, broker: Broker, tmp_path: Path
) -> None:
    here, there = new_node("node-a"), new_node("node-b")
    here.node_worker()
    slow = slow_kind(tmp_path)
    worker = there.node_worker(**slow)
    asked = torch.spawn("qa", kind="slow", node="node-b", wait=False)
    until(lambda: there.pane_of("qa-1"), "its program starts")
    die(there, worker)
    with pytest.raises(SpawnFailed, match=r"its node node-b is gone, before qa-1 was ready"):
        asked.wait(60)
    assert torch.spawn("qa").agent_id == "qa-2"  # the node that is away does not know yet that it has no qa-1
    (tmp_path / "gate").touch()
    there.node_worker(**slow)
    until(lambda: states(broker).get("qa-1") in (None, "failed"), "the node has given it up")
    until(lambda: there.kept_worker("qa-1") is None, "nobody hosts it")
    assert there.pane_of("qa-1") is None
    assert torch.spawn("qa").agent_id == "qa-1"


def test_a_node_worker_that_is_killed_while_it_spawns_goes_on_when_it_is_back(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    slow = slow_kind(tmp_path)
    worker = node.node_worker(**slow)
    asked = torch.spawn("qa", kind="slow", wait=False)
    until(lambda: node.pane_of("qa-1"), "its program starts")
    worker.kill()
    worker.start()
    worker.ready()
    pane = node.pane_of("qa-1")
    (tmp_path / "gate").touch()
    assert asked.wait(60).agent_id == "qa-1"
    assert node.pane_of("qa-1") == pane
    assert torch.agent("qa-1").incarnation == 1


def test_a_spawned_agent_stays_when_its_node_worker_is_killed(node: Node, torch: Torch) -> None:
    worker = node.node_worker()
    torch.spawn("qa")
    torch.enqueue("MEMORY=kept", agent="qa-1").result(timeout=20)
    hosted, pane = node.kept_worker("qa-1"), node.pane_of("qa-1")
    worker.kill()
    worker.start()
    worker.ready()
    until(lambda: (kept := worker.kept("qa-1")) and kept.state is KeptState.RUNNING, "it is kept again")
    assert (node.kept_worker("qa-1"), node.pane_of("qa-1")) == (hosted, pane)
    assert hosted
    hosted.send_signal(signal.SIGKILL)
    until(lambda: (now := node.kept_worker("qa-1")) and now != hosted, "its worker was started again")
    assert torch.enqueue("echo $MEMORY", agent="qa-1").result(timeout=20).answer == "kept\n"


def test_a_broker_that_forgot_learns_again_who_was_spawned(node: Node, torch: Torch, broker: Broker) -> None:
    node.node_worker(TORCH_AGENTS_LIMIT="1")
    torch.spawn("qa")
    broker.client.delete(keys.SPAWNED, keys.SPAWN_STATES)
    until(lambda: states(broker) == {"qa-1": SpawnState.READY}, "the broker knows it again")
    with pytest.raises(SpawnRefused, match="TORCH_AGENTS_LIMIT is 1"):
        torch.spawn("qa")


# ── an agent and its helper ──────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_spawns_a_helper_gives_it_a_task_and_has_it_retire(node: Node, torch: Torch) -> None:
    node.node_worker("boss-1:project-manager", TORCH_AGENTS_PER_PARENT="1")
    script = """
    helper=$(torch-tasks spawn developer --temporary) || exit
    torch-tasks spawn developer && exit 9
    torch-tasks run --agent $helper --wait 'echo answered by $TORCH_AGENT_ID'
    torch-tasks retire $helper
    """
    task = torch.enqueue(script, agent="boss-1")
    helper = until(lambda: next(iter(torch.agents(role="developer")), None), "the helper is there", 60)
    assert (helper.parent, helper.lifetime) == ("boss-1", Lifetime.TEMPORARY)
    answer = task.result(timeout=90).raise_for_status().answer
    assert "boss-1 has spawned 1 agents that live, TORCH_AGENTS_PER_PARENT is 1" in answer
    assert "answered by developer-1\n" in answer
    assert "developer-1 has retired on node-a" in answer
    assert [info.agent_id for info in torch.agents()] == ["boss-1"]


@pytest.mark.parametrize("is_killed", [False, True], ids=["and the other runs on", "and the other is started anew"])
def test_a_pool_has_no_agent_too_many_when_the_broker_forgot_and_one_machine_is_late(
    is_killed: bool, new_node: NewNode, torch: Torch, broker: Broker
) -> None:
    pool = json.dumps([{"role": "developer", "kind": "shell", "min": 2, "max": 2}])
    pace = {"TORCH_POOLS": pool, "TORCH_AGENTS_PER_NODE": "1", "TORCH_TAKEOVER_SECONDS": "20"}
    early, late = new_node("node-a"), new_node("node-b")
    workers = [one.node_worker(**pace) for one in (early, late)]
    until(lambda: {info.node for info in torch.agents(online=True)} == {"node-a", "node-b"}, "each has one agent", 60)
    until(lambda: set(states(broker).values()) == {"ready"}, "both are ready")
    spare = new_node("node-c")
    spare.node_worker(**{**pace, "TORCH_POOLS": "[]"})
    os.kill(workers[1].process.pid, signal.SIGSTOP)  # it cannot say what it has, but its agent goes on
    try:
        if is_killed:
            workers[0].kill()
        broker.client.flushall()
        if is_killed:
            workers[0].start()
        with pytest.raises(AssertionError, match="a third one"):
            until(lambda: len(states(broker)) > 1, "a third one was started", 12)
    finally:
        os.kill(workers[1].process.pid, signal.SIGCONT)
    until(lambda: len(states(broker)) == 2, "the late one has told of its agent")
    assert len({info.agent_id for info in torch.agents()}) == 2


def done_by(node: Node, agent_id: str) -> int:
    """How many tasks the agent has done, as its worker has written down."""
    journal = json.loads((node.state / "agents" / agent_id / "journal.json").read_bytes())
    return int(journal["performance"]["succeeded"])


# ── quarantine ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_that_works_between_its_crashes_is_started_again_however_many_those_are(
    node: Node, torch: Torch
) -> None:
    worker = node.node_worker("qa-1:qa", TORCH_QUARANTINE_CRASHES="2")
    for number in range(4):
        assert torch.enqueue(f"echo {number}", agent="qa-1").result(timeout=30).answer == f"{number}\n"
        # Its worker writes the end of the task into its journal right after it has told it.
        until(lambda done=number: done_by(node, "qa-1") > done, "it is written down")  # type: ignore[misc]
        hosted = node.kept_worker("qa-1")
        assert hosted
        hosted.kill()
    assert torch.enqueue("echo alive", agent="qa-1").result(timeout=30).answer == "alive\n"
    kept = worker.kept("qa-1")
    assert kept
    assert kept.state is KeptState.RUNNING


def test_quarantine_is_told_with_its_reason_and_lifted(node: Node, torch: Torch) -> None:
    lost = node.folder / "lost"
    lost.mkdir()
    worker = node.node_worker(TORCH_QUARANTINE_CRASHES="2")
    torch.spawn("qa", workdir=lost)
    lost.rmdir()
    hosted = node.kept_worker("qa-1")
    assert hosted
    hosted.kill()
    until(lambda: (kept := worker.kept("qa-1")) and kept.state is KeptState.QUARANTINED, "it is in quarantine")
    reason = f"its workdir {lost} is not a folder on this node"
    [kept] = torch.node("node-a").agents
    assert reason in kept.reason
    until(lambda: not torch.agent("qa-1").online, "it is offline")
    listed = command("agents")
    assert reason in listed.stderr
    assert "quarantined" in listed.stdout
    lost.mkdir()
    assert command("agent", "qa-1", "--release").returncode == 0
    assert torch.enqueue("echo back", agent="qa-1").result(timeout=30).answer == "back\n"
    with pytest.raises(NotInQuarantine, match="agent qa-1 is not in quarantine on node-a"):
        torch.release("qa-1")

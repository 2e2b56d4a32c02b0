"""The node registry: what nodes have, which agents they keep, and whether they are online."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import forked
import psutil
import pytest
from machine import TORCH_TASKS
from nodes import Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.errors import NodeNotFound, SpawnRefused

NewNode = Callable[[str], Node]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return forked.run([TORCH_TASKS, *words])


def test_a_node_reports_what_it_has(node: Node, torch: Torch) -> None:
    worker = node.node_worker("dev-1:developer", TORCH_NODE_LABELS='["gpu"]', TORCH_NODE_ADDRESS="a.example")
    until(lambda: (info := worker.info) and info.capacity.panes == 1, "its pane is counted")
    info = torch.node("node-a")
    assert (info.online, info.labels, info.address, info.drained) == (True, ("gpu",), "a.example", False)
    assert info.capacity.cpus == psutil.cpu_count()
    assert info.capacity.memory_total == psutil.virtual_memory().total
    assert 0 < info.capacity.memory_free <= info.capacity.memory_total
    [kept] = info.agents
    assert (kept.agent_id, kept.role, kept.kind, kept.state) == ("dev-1", "developer", "shell", "running")
    found = json.loads(command("node", "list", "--json").stdout)
    [listed] = found["nodes"]
    assert found["broker"]["memory_used"] > 0
    assert re.search(r"^the broker uses \d+ MiB", command("node", "list").stdout, re.MULTILINE)
    assert (listed["name"], listed["labels"], listed["state_dir"]) == ("node-a", ["gpu"], str(node.state))
    assert "dev-1" in command("node", "show", "node-a").stdout
    with pytest.raises(NodeNotFound, match="no node 'nonesuch' is registered"):
        torch.node("nonesuch")


def test_a_node_is_missed_when_it_dies_and_seen_when_it_is_back(node: Node, torch: Torch) -> None:
    worker = node.node_worker()
    first = torch.node("node-a")
    worker.kill()
    until(lambda: not torch.node("node-a").online, "it is missed")
    worker.start()
    worker.ready()
    assert torch.node("node-a").incarnation == first.incarnation + 1
    worker.kill("SIGTERM")
    assert (torch.node("node-a").online, torch.node("node-a").left) == (False, True)


def test_a_second_node_worker_of_one_name_is_refused(new_node: NewNode, torch: Torch) -> None:
    first, second = new_node("node-a"), new_node("node-a")
    worker = first.node_worker()
    with pytest.raises(AssertionError, match="has ended"):
        second.node_worker()
    assert f"another node worker is named node-a: pid {worker.process.pid} on" in second.said_last()
    with pytest.raises(AssertionError, match="has ended"):
        first.node_worker()
    assert f"a node worker runs already in {first.state}: pid {worker.process.pid}" in first.said_last()
    assert torch.node("node-a").pid == worker.process.pid


def test_no_agent_is_started_on_a_drained_node(new_node: NewNode, torch: Torch) -> None:
    for name in ("node-a", "node-b"):
        new_node(name).node_worker()
    assert command("node", "drain", "node-a").returncode == 0
    assert [torch.spawn("qa").node for _ in range(2)] == ["node-b", "node-b"]
    with pytest.raises(SpawnRefused, match="node-a drained"):
        torch.spawn("qa", node="node-a")
    until(lambda: torch.node("node-a").drained, "the node is drained")
    assert "drained" in command("node", "list").stdout
    torch.undrain("node-a")
    assert torch.spawn("qa").node == "node-a"  # it has fewer


def test_a_drained_node_finishes_or_hands_over_what_it_does_and_begins_nothing(
    new_node: NewNode, torch: Torch, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        new_node(f"node-{name}").node_worker(f"dev-{name}:developer", f"qa-{name}:qa")
    until(lambda: len(torch.agents(online=True)) == 4, "all are there", 60)
    torch.pause("qa-a", reason="a review")
    script = f"echo $TORCH_AGENT_ID >> {tmp_path}/begun; until [ -e {tmp_path}/gate ]; do sleep 0.05; done"
    task = torch.enqueue(script, agent="dev-a")
    until((tmp_path / "begun").exists, "it has begun", 30)
    said = command("node", "drain", "node-a", "--wait", "1")
    assert said.returncode == 124
    assert "these agents take no new tasks: dev-a" in said.stdout
    assert f"dev-a finishes task {task.id} first" in said.stdout
    assert f"still working on node-a after 1 s: dev-a (task {task.id})" in said.stderr
    assert torch.agent("dev-a").paused
    others = [torch.enqueue("true", role="developer") for _ in range(3)]
    assert {other.result(timeout=30).agent for other in others} == {"dev-b"}
    (tmp_path / "gate").touch()
    assert "no task runs on node-a any more" in command("node", "drain", "node-a", "--wait", "30").stdout
    assert task.result(timeout=10).agent == "dev-a"
    assert command("node", "undrain", "node-a").stdout.endswith("these agents take tasks again: dev-a\n")
    assert torch.agent("qa-a").paused
    assert torch.enqueue("true", agent="dev-a").result(timeout=30).succeeded


def test_what_a_drained_node_does_is_handed_over(new_node: NewNode, torch: Torch, tmp_path: Path) -> None:
    first, second = (new_node(f"node-{name}") for name in "ab")
    first.node_worker("dev-a:developer")
    until(lambda: len(torch.agents(online=True)) == 1, "it is there", 60)
    script = f"echo $TORCH_AGENT_ID >> {tmp_path}/begun; until [ -e {tmp_path}/gate ]; do sleep 0.05; done"
    task = torch.enqueue(script, role="developer")
    until((tmp_path / "begun").exists, "it has begun", 30)
    assert torch.drain("node-a", hand_over=True).working == (("dev-a", task.id),)  # there is no other agent
    second.node_worker("dev-b:developer")
    until(lambda: len(torch.agents(online=True)) == 2, "another agent is online", 60)
    drained = torch.drain("node-a", hand_over=True, timeout=30)
    assert drained.handed_over == (("dev-a", task.id),)
    (tmp_path / "gate").touch()
    assert task.result(timeout=30).agent == "dev-b"


def test_a_pool_has_its_least_number_once_in_the_fleet_and_only_where_its_labels_are(
    new_node: NewNode, torch: Torch, tmp_path: Path
) -> None:
    (tmp_path / "torch.toml").write_text(
        """
        [[pools]]
        role = "developer"
        skills = ["python"]
        min = 3
        max = 6

        [[pools]]
        role = "painter"
        min = 1
        max = 1
        labels = ["gpu"]
        """
    )
    plain, gpu = new_node("node-a"), new_node("node-b")
    plain.node_worker(TORCH_CONFIG_DIR=str(tmp_path))
    gpu.node_worker(TORCH_CONFIG_DIR=str(tmp_path), TORCH_NODE_LABELS='["gpu"]')
    until(lambda: len(torch.agents(online=True)) == 4, "all are there")
    agents = {info.agent_id: info.node for info in torch.agents()}
    assert set(agents) == {"developer-1", "developer-2", "developer-3", "painter-1"}
    assert agents["painter-1"] == "node-b"
    torch.retire("developer-2")
    until(lambda: len(torch.agents(online=True)) == 4, "who is missing was replaced", 30)
    assert {info.agent_id for info in torch.agents()} == set(agents)

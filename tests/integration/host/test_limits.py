"""An agent's terminal within its limits, and how a task ends that goes beyond them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import Machine
from nodes import Node
from pydantic import ValidationError

from torch_tasks import Torch
from torch_tasks.machine import commands
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.limits import Limits
from torch_tasks.model.task import FailureKind, TaskState
from torch_tasks.workers.tmux.cgroup import group_of, group_words, remove_group, scope_words

TAKES = f"{sys.executable} -c 'held = bytearray({{size}} << 20); held[::4096] = b\"x\" * len(held[::4096]); {{then}}'"
"""A program that takes so many MiB of memory, really."""


# ── what may be written ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "size"),
    [("512M", 512 << 20), ("2G", 2 << 30), ("1.5 GiB", 3 << 29), (4 << 20, 4 << 20), ("4MB", 4 << 20)],
)
def test_memory_is_written_as_people_write_it(written: str | int, size: int) -> None:
    assert Limits.model_validate({"memory": written}).memory == size


@pytest.mark.parametrize("wrong", [{"memory": "much"}, {"memory": "1K"}, {"cpu": 0}, {"processes": 0}, {"disk": "2G"}])
def test_a_limit_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(wrong)


def test_an_agents_own_limits_come_before_everybodys_and_reach_its_worker() -> None:
    agent = AgentSpec.model_validate({"id": "dev-1", "role": "developer", "memory": "2G", "processes": 200})
    assert agent.or_else(Limits(memory=1 << 30, cpu=1.5)) == Limits(memory=2 << 30, cpu=1.5, processes=200)
    words = " ".join(commands.agent_worker(agent))
    assert f"--memory {2 << 30}" in words
    assert "--processes 200" in words
    assert "--cpu" not in words


def test_a_scope_is_told_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd_run = tmp_path / "systemd-run"
    systemd_run.write_text("#!/bin/sh\necho systemd 255\n")
    systemd_run.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    words = scope_words("dev-1", "always", Limits(memory=2 << 30, cpu=1.5, processes=200))
    told = [words[place + 1] for place, word in enumerate(words) if word == "--property"]
    assert [word for word in told if not word.startswith("OOMPolicy")] == [
        f"MemoryMax={2 << 30}",
        "MemorySwapMax=0",
        "CPUQuota=150%",
        "TasksMax=200",
    ]
    assert words[-1] == "--"


# ── kept by the worker ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_who_takes_too_much_memory_is_ended_and_the_task_says_so(node: Node, torch: Torch) -> None:
    worker = node.agent_worker("dev-1", TORCH_AGENT_MEMORY="200M")
    within = torch.enqueue(TAKES.format(size=60, then='print("fine")'), agent="dev-1").result(timeout=30)
    assert within.answer == "fine\n"
    pane = worker.pane()
    result = torch.enqueue(
        TAKES.format(size=400, then="import time; time.sleep(600)"), agent="dev-1", max_retries=0
    ).result(timeout=60)
    assert (result.status, result.error and result.error.kind) == (TaskState.DEAD, FailureKind.OUT_OF_MEMORY)
    assert result.error
    assert result.error.message.startswith("out of memory: its processes used ")
    assert "the limit is 200 MiB" in result.error.message
    assert torch.enqueue("echo back again", agent="dev-1").result(timeout=30).answer == "back again\n"
    assert worker.pane() != pane


@pytest.mark.slow
def test_who_starts_too_many_processes_is_ended_and_the_task_says_so(node: Node, torch: Torch) -> None:
    node.agent_worker("dev-1", TORCH_AGENT_PROCESSES="20")
    result = torch.enqueue("for i in $(seq 40); do sleep 600 & done; wait", agent="dev-1", max_retries=0).result(
        timeout=60
    )
    assert result.error
    assert result.error.kind is FailureKind.AGENT_CRASHED
    said = re.match(r"too many processes: it had (\d+), the limit is 20 ", result.error.message)
    assert said, result.error.message
    assert int(said[1]) > 20
    assert torch.enqueue("true", agent="dev-1").result(timeout=30).succeeded
    left = subprocess.run(["pgrep", "-f", "sleep 600"], capture_output=True, text=True, check=False).stdout.split()
    assert not [pid for pid in left if _state_folder_of(int(pid)) == str(node.state)]


def _state_folder_of(pid: int) -> str:
    try:
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return ""
    return next((word.split("=", 1)[1] for word in variables if word.startswith("TORCH_STATE_DIR=")), "")


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.torch("down", code=None)
    machine.close()


@pytest.mark.slow
def test_an_agent_that_is_declared_with_limits_shows_what_it_uses(machine: Machine) -> None:
    config = machine.folder / "config"
    config.mkdir()
    (config / "torch.toml").write_text(
        'agent_processes = 300\n[[agents]]\nid = "dev-1"\nrole = "developer"\nmemory = "1G"\ncpu = 1.5\n'
    )
    machine.torch("up", "--detach", "--no-flower", "--no-beat", seconds=90)
    shown = machine.torch("agent", "dev-1").stdout
    lines = {line.split(":")[0]: line.split(":", 1)[1].strip() for line in shown.splitlines()}
    assert lines["memory"].endswith(" MiB of 1.0 GiB")
    assert lines["processes"].endswith(" of 300")
    assert lines["cpu"] == "at most 1.5, not enforced here"
    assert lines["limits kept by"] == "its worker"
    told = json.loads(machine.torch("agent", "dev-1", "--json").stdout)["resources"]
    assert told["limits"] == {"memory": 1 << 30, "cpu": 1.5, "processes": 300}
    assert 0 < told["memory"] < 1 << 30


# ── kept by the kernel ───────────────────────────────────────────────────────────────────────────────────────────


def cgroup2() -> Path:
    """Where control groups of version 2 can be made here."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return Path(place)
    pytest.skip("cgroup v2 is not mounted here, or not for this user")


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A folder for the groups of agents, with what controllers there are."""
    parent = cgroup2() / f"torch-test-{os.getpid()}"
    try:
        parent.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    yield parent
    deadline = time.monotonic() + 10
    while parent.exists() and time.monotonic() < deadline:
        for group in parent.iterdir():
            if group.is_dir():
                remove_group(group.name.removeprefix("torch-agent-"), parent)
        try:
            parent.rmdir()
        except OSError:
            time.sleep(0.05)
    assert not parent.exists()


def _is_complete(parent: Path) -> bool:
    """Groups made in there have all controllers."""
    try:
        (parent.parent / "cgroup.subtree_control").write_text("+memory +cpu +pids")
        (parent / "cgroup.subtree_control").write_text("+memory +cpu +pids")
    except OSError:
        return False
    return True


def test_without_the_controllers_there_is_no_group_and_it_is_said(
    delegated: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if _is_complete(delegated):
        pytest.skip("this machine has them all")
    assert group_words("dev-1", Limits(memory=1 << 30), delegated) == ()
    assert "the worker enforces the limits itself" in caplog.text
    assert not (delegated / "torch-agent-dev-1").exists()


@pytest.mark.slow
def test_an_agent_whose_group_cannot_be_made_is_kept_within_its_limits_all_the_same(
    delegated: Path, node: Node, torch: Torch
) -> None:
    if _is_complete(delegated):
        pytest.skip("this machine has all controllers")
    node.agent_worker("dev-1", TORCH_AGENT_MEMORY="200M", TORCH_CGROUP=str(delegated))
    used = torch.resources("dev-1")
    assert used
    assert used.kept_by == "its worker"
    task = torch.enqueue(TAKES.format(size=400, then="import time; time.sleep(600)"), agent="dev-1", max_retries=0)
    result = task.result(timeout=60)
    assert result.error
    assert result.error.kind is FailureKind.OUT_OF_MEMORY


@pytest.mark.slow
def test_the_kernel_keeps_an_agent_in_its_group_and_its_kill_is_named(
    delegated: Path, new_node: Callable[[str], Node], torch: Torch
) -> None:
    if not _is_complete(delegated):
        pytest.skip("the controllers memory, cpu and pids are not there for control groups of version 2")
    node = new_node("node-a")
    worker = node.agent_worker(
        "dev-1", TORCH_AGENT_MEMORY="200M", TORCH_AGENT_PROCESSES="100", TORCH_CGROUP=str(delegated)
    )
    used = torch.resources("dev-1")
    assert used
    assert used.kept_by.startswith("control group")
    server = int(worker.tmux("display-message", "-p", "#{pid}"))
    assert group_of(server, "dev-1") == delegated / "torch-agent-dev-1"
    result = torch.enqueue(TAKES.format(size=400, then="print(1)"), agent="dev-1", max_retries=0).result(timeout=60)
    assert result.error
    assert result.error.kind is FailureKind.OUT_OF_MEMORY
    assert "the kernel killed 1 of its processes, the limit is 200 MiB" in result.error.message
    assert torch.enqueue("echo again", agent="dev-1").result(timeout=30).succeeded

"""Pools that grow by what waits for them and shrink when nobody needs them, on a real machine with its beat."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from machine import Machine
from person import Person
from waiting import until

from torch_tasks.broker.connection import connect
from torch_tasks.model.agent import AgentInfo
from torch_tasks.settings import Settings
from torch_tasks.store.agents import AgentRecords

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

POOL = '[[pools]]\nrole = "developer"\nkind = "shell"\nmin = {min}\nmax = {max}\nmemory = "900M"\n'
PACE = {
    "TORCH_SCALE_SECONDS": "1",
    "TORCH_SCALE_WAIT_SECONDS": "1",
    "TORCH_SCALE_COOLDOWN_SECONDS": "1",
    "TORCH_SCALE_BACKLOG_SECONDS": "5",
    "TORCH_TEMPORARY_IDLE_SECONDS": "3",
}


@pytest.fixture
def up() -> Iterator[Callable[..., Machine]]:
    """Starts a machine whose torch.toml declares such a pool."""
    machines: list[Machine] = []

    def start(*words: str, least: int = 1, most: int = 3, **environment: str) -> Machine:
        machine = Machine(**{**PACE, **environment})
        machine.fork_stack()
        machines.append(machine)
        config = machine.folder / "config"
        config.mkdir()
        (config / "torch.toml").write_text(POOL.format(min=least, max=most))
        machine.torch("up", "--detach", "--no-flower", *words, seconds=120)
        return machine

    yield start
    for machine in machines:
        machine.torch("down", code=None, seconds=120)
        machine.close()


def present(machine: Machine) -> list[AgentInfo]:
    """The agents that are there."""
    settings = Settings(state_dir=machine.state)
    registry = AgentRecords(connect(settings.broker()), settings)
    return [info for info in registry.agents() if info.online]


def online(machine: Machine) -> set[str]:
    """Their ids."""
    return {info.agent_id for info in present(machine)}


def python(machine: Machine, program: str) -> str:
    """What a program of a user's says on this machine."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=machine.env, capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_fifty_tasks_have_a_pool_grow_to_its_limit_and_all_are_done_once_and_it_shrinks_again(
    up: Callable[..., Machine], tmp_path: Path
) -> None:
    machine = up()
    until(lambda: len(online(machine)) == 1, "the least is there", 60)
    [first] = present(machine)
    assert str(900 << 20) in psutil.Process(first.pid).cmdline(), "it has the limit of its pool"
    python(
        machine,
        "from torch_tasks import Torch\n"
        "for number in range(50):\n"
        f"    Torch().enqueue(f'sleep 1; echo {{number}} $TORCH_AGENT_ID >> {tmp_path}/done', role='developer')",
    )
    most = until(lambda: agents if len(agents := online(machine)) == 3 else None, "the pool has its limit", 60)
    done = tmp_path / "done"
    until(lambda: done.exists() and len(done.read_text().splitlines()) >= 50, "all tasks are done", 120)
    lines = [line.split() for line in done.read_text().splitlines()]
    assert sorted(int(number) for number, _ in lines) == list(range(50))
    assert {agent for _, agent in lines} == most
    until(lambda: len(online(machine)) == 1, "the pool has its least again", 60)
    tasks = json.loads(machine.torch("tasks", "--limit", "60", "--json").stdout)
    assert [task["state"] for task in tasks] == ["succeeded"] * 50


def test_an_agent_that_is_ready_is_no_longer_starting_and_its_pool_grows_on(
    up: Callable[..., Machine], tmp_path: Path
) -> None:
    machine = up(least=1, most=3, TORCH_TEMPORARY_IDLE_SECONDS="600")
    waits = f"until [ -e {tmp_path}/go ]; do sleep 0.2; done"
    for size in (1, 2, 3):  # each task keeps one agent busy, so each needs one more agent
        machine.torch("run", waits, "--role", "developer")
        until(lambda wanted=size: len(busy(machine)) == wanted, f"{size} agents work", 60)
    (tmp_path / "go").touch()


def busy(machine: Machine) -> set[str]:
    """The agents that work."""
    return {info.agent_id for info in present(machine) if info.current_task}


def test_who_is_looked_at_stays(up: Callable[..., Machine]) -> None:
    machine = up(least=0, most=1)
    machine.torch("run", "echo there", "--role", "developer", "--wait", seconds=90)
    [agent] = online(machine)
    with Person(socket=machine.state / "agents" / agent / "tmux"), pytest.raises(AssertionError, match="it retires"):
        until(lambda: agent not in online(machine), "it retires", 8)
    until(lambda: agent not in online(machine), "it retires when nobody looks", 60)


def test_a_decision_is_explained_and_a_dry_run_does_nothing(up: Callable[..., Machine]) -> None:
    machine = up("--no-beat", least=0, most=2)
    for _ in range(3):
        machine.torch("run", "true", "--role", "developer")
    machine.torch("run", "true", "--role", "qa")
    before = machine.torch("scale", "--dry-run", "--explain")
    assert before.stdout.startswith("developer::shell:: 0 agents, would grow to 2\n  3 waiting")
    assert "0 free, 0 busy, 0 starting" in before.stdout
    assert before.stderr == (
        "tasks wait in torch.qa.any: no agent reads it and no pool serves it; spawn an agent or declare a pool\n"
    )
    assert not online(machine)
    assert machine.torch("scale").stdout == "developer::shell:: 0 agents, grows to 2\n"
    after = machine.torch("scale", "--explain").stdout
    assert "starting" in after or "no task waits" in after
    until(lambda: len(online(machine)) == 2, "they are there", 60)


def test_an_assigned_task_that_nobody_can_do_has_its_pool_looked_at_at_once(up: Callable[..., Machine]) -> None:
    machine = up(least=0, most=1, TORCH_SCALE_SECONDS="600")
    program = (
        "from torch_tasks.orchestration import TaskOrchestrator\n"
        "from torch_tasks import Torch\n"
        "task = TaskOrchestrator().assign_task({'prompt': 'echo served', 'role': 'developer'})\n"
        "print(task.status, Torch().task(task.task_id).result(timeout=60).answer)"
    )
    assert python(machine, program) == "unroutable served\n\n"

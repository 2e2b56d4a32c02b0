"""What the plan wrote works as written: the registry's command, the stack's, the monitor."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from machine import Machine
from nodes import Broker, Node
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.fleet import Fleet
from torch_tasks.monitoring import SystemMonitor
from torch_tasks.monitoring.health import system_health
from torch_tasks.orchestration import AgentRegistry
from torch_tasks.settings import Settings


def registry(*words: str) -> subprocess.CompletedProcess[str]:
    """The registry's own command."""
    argv = [sys.executable, "-m", "torch_tasks.orchestration.agent_registry", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def developer(shared_node: Node) -> str:
    """An agent with a skill."""
    return shared_node.agent_worker("developer-1", skills=["python"]).agent_id


def test_the_registry_is_there_without_arguments(developer: str) -> None:
    registry = AgentRegistry()
    found = registry.find_available_agents(role="developer", skills=["python"])
    assert [info.agent_id for info in found] == [registry.get_agent(developer).agent_id] == [developer]
    assert [info.agent_id for info in registry.get_all_agents()] == [developer]
    assert registry.skills() == ["python"]


def test_the_registrys_command(developer: str) -> None:
    listed = registry("--list")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines()[1].split()[:3] == [developer, "developer", "python"]
    health = json.loads(registry("--status").stdout)
    assert health["agents"]["developer"] == {"online": 1, "free": 1, "offline": 0}
    spawned = registry("--spawn", "qa", "python,git")
    assert spawned.returncode == 3
    assert "no node worker is online; 'torch-tasks up' starts one" in spawned.stderr
    assert registry().returncode == 2


def test_health_tells_what_is_wrong(developer: str, torch: Torch, broker: Broker) -> None:
    monitor = SystemMonitor()
    healthy = monitor.get_system_health()
    assert (healthy.status, healthy.reasons) == ("healthy", ())
    waits = torch.enqueue("true", role="nobody")
    broker.client.hset(keys.DEAD_LETTERS, "dead-1", "")
    degraded = monitor.get_system_health()
    assert degraded.status == "degraded"
    assert [waits.id in reason or "1 dead letter" in reason for reason in degraded.reasons] == [True, True]
    assert degraded.queues["torch.nobody.any"].depth == 1
    assert (degraded.tasks["queued"], degraded.dead_letters) == (1, 1)
    assert json.loads(degraded.model_dump_json())["status"] == "degraded"
    broker.client.hdel(keys.DEAD_LETTERS, "dead-1")
    waits.cancel()


def test_without_a_broker_the_system_is_down_and_says_why() -> None:
    nowhere = Settings(broker_url="redis://127.0.0.1:1/0", broker_connect_seconds=0.2)  # type: ignore[arg-type]
    health = system_health(Fleet(nowhere))
    assert health.status == "down"
    assert "no broker answers at redis://127.0.0.1:1/0" in health.reasons[0]


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_main_runs_the_stack_until_it_is_told_to_end(machine: Machine, number: int) -> None:
    argv = [sys.executable, "-m", "torch_tasks.main", "--no-flower", "--no-beat", "--agent", "dev-1:developer"]
    with machine.output.open("w") as output:
        stack = subprocess.Popen(argv, env=machine.env, cwd=machine.work, stdout=output, stderr=output)
    try:
        until(lambda: "Ctrl-C stops everything." in machine.output.read_text(), "all is up", 120)
        assert "running 'torch-tasks up'" in machine.output.read_text()
        assert "dev-1" in machine.torch("agents", "--online").stdout
    finally:
        stack.send_signal(number)
        stack.wait(timeout=60)
    assert "nothing was running" in machine.torch("down").stdout

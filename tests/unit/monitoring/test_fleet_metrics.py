"""The fleet's numbers, made of what the broker says."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import psutil
from waiting import until

from torch_tasks.errors import BrokerUnreachable
from torch_tasks.fleet import Fleet
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentInfo, AgentState, AgentStatus
from torch_tasks.model.fields import now
from torch_tasks.monitoring.exposition import Measure, samples
from torch_tasks.monitoring.fleet_metrics import fleet_metrics, measures_of_agents, measures_of_backlogs
from torch_tasks.orchestration.scaling import Backlog
from torch_tasks.system.machine_use import used_below


def agent(agent_id: str, role: str = "developer", **fields: Any) -> AgentInfo:
    known: dict[str, Any] = {"agent_id": agent_id, "role": role, "kind": "shell", "node": "n", "pid": 1, "host": "h"}
    known |= {"incarnation": 1, "workdir": "/w", "tmux_socket": "/t", "started_at": now() - timedelta(hours=1)}
    known |= {"status": AgentStatus.ACTIVE, "state": AgentState.READY}
    return AgentInfo.model_validate(known | fields)


def shown(measures: Any) -> dict[tuple[str, ...], float]:
    found: list[Measure] = list(measures)
    return {(one.metric.name, *one.labels): float(one.value) for one in found}


def test_agents_are_counted_by_role_and_state() -> None:
    numbers = shown(
        measures_of_agents(
            [
                agent("developer-1"),
                agent("developer-2", state=AgentState.WORKING, current_task="t-1"),
                agent("developer-3", status=AgentStatus.OFFLINE),
                agent("developer-4", status=AgentStatus.OFFLINE, left=True),
                agent("qa-1", "qa", state=AgentState.LIMITED),
            ]
        )
    )
    assert numbers == {
        ("torch_agents", "developer", "ready"): 1,
        ("torch_agents", "developer", "working"): 1,
        ("torch_agents", "developer", "offline"): 1,
        ("torch_agents", "qa", "limited"): 1,
        ("torch_agents_busy", "developer"): 1,
        ("torch_agents_busy", "qa"): 0,
        ("torch_agents_held", "developer"): 0,
        ("torch_agents_held", "qa"): 0,
    }


def backlog(queue: str, waiting: int, oldest: float) -> Backlog:
    return Backlog(queue=queue, waiting=waiting, oldest_seconds=oldest)


def test_waiting_tasks_are_counted_by_the_role_that_they_ask_for() -> None:
    waiting = [
        backlog("torch.developer.any", 2, 5),
        backlog("torch.developer.gpu", 1, 700),
        backlog("torch.any.any", 4, 3),
        backlog("torch.nobody.any", 1, 10),
        backlog("torch.nobody-else.any", 1, 20),
    ]
    numbers = shown(measures_of_backlogs(waiting, [agent("developer-1")]))
    assert numbers["torch_tasks_waiting", "developer"] == 3
    assert numbers["torch_tasks_waiting_oldest_seconds", "developer"] == 700
    assert numbers["torch_tasks_waiting", "any"] == 4
    assert numbers["torch_tasks_unroutable", "developer"] == 1
    assert numbers["torch_tasks_unroutable_oldest_seconds", "developer"] == 700
    assert ("torch_tasks_unroutable", "any") not in numbers


def test_roles_that_nobody_has_are_one_label_however_many_there_are() -> None:
    waiting = [backlog(f"torch.invented-{number}.any", 1, number) for number in range(100)]
    numbers = shown(measures_of_backlogs(waiting, [agent("developer-1")]))
    assert numbers["torch_tasks_unroutable", "other"] == 100
    assert numbers["torch_tasks_unroutable_oldest_seconds", "other"] == 99
    assert len(numbers) == 4


def test_without_a_waiting_task_there_are_zeros() -> None:
    numbers = shown(measures_of_backlogs([], []))
    assert numbers == dict.fromkeys(numbers, 0.0)
    assert len(numbers) == 4


def test_a_fleet_whose_broker_is_away_is_said_to_be_unreadable() -> None:
    def away() -> Fleet:
        raise BrokerUnreachable("the broker is away")

    shown = samples(fleet_metrics(away))
    assert shown["torch_fleet_readable", frozenset()] == 0
    assert {metrics.AGENTS.name, metrics.TASKS_WAITING.name}.isdisjoint(name for name, _ in shown)


# ── what processes use ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_process_has_started_counts_with_it() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin
        until(lambda: used_below({"a": process.pid})["a"].processes == 2, "the child was started")
        found = used_below({"a": process.pid, "me": os.getpid(), "gone": 2**22 + 1})
        process.stdin.close()
    assert found["a"].processes == 2
    assert found["a"].memory > 1 << 20
    assert found["me"].processes >= 3
    dead = sum(os.times()[:4])  # its own, and that of the children for which it has waited
    living = sum(sum(child.cpu_times()[:4]) for child in psutil.Process().children(recursive=True))
    assert dead - 10 <= found["me"].cpu <= dead + living + 10
    assert "gone" not in found

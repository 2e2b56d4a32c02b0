"""What is blocked for too long comes before the manager, once; how messages fare is part of the system's health."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from beats import BeatMachine
from clients import client_of
from machine import TORCH_TASKS
from nodes import Broker, Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.communication import Message, MessageRecord, MessageState, NovaOrchestrator
from torch_tasks.communication.messenger import outbox_of
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question, TaskSpec, TaskState
from torch_tasks.monitoring import SystemMonitor
from torch_tasks.store.task_outcomes import NewTask

pytestmark = pytest.mark.slow


def enter(agent_id: str, role: str, **fields: Any) -> AgentInfo:
    """An agent is there."""
    known: dict[str, Any] = {"agent_id": agent_id, "role": role, "kind": "claude", "node": "n", "pid": 1, "host": "h"}
    known |= {"incarnation": 0, "workdir": "/w", "tmux_socket": "/t", "started_at": now(), "state": AgentState.READY}
    return fleet().registry.register(AgentInfo.model_validate(known | fields), holder_is_gone=True)


def ask(agent: AgentInfo, task_id: str) -> None:
    """The agent's task waits for a decision."""
    records, spec = fleet().records, TaskSpec(id=task_id, prompt="push it", agent=agent.agent_id)
    records.accept(NewTask(task_id, spec.model_dump(mode="json"), f"torch.agent.{agent.agent_id}"))
    records.take(task_id, agent)
    records.move(task_id, TaskState.RUNNING, by=agent)
    question = Question(text="May I push?", choices=("yes", "no")).model_dump_json()
    records.move(task_id, TaskState.WAITING, by=agent, question=question)
    fleet().registry.heartbeat(agent.model_copy(update={"current_task": task_id, "state": AgentState.WAITING}))


def escalated(party: str) -> list[MessageRecord]:
    """What was brought before this party."""
    return [record for record in NovaOrchestrator().inbox(party) if record.message.kind == "escalation"]


def test_what_is_blocked_comes_before_the_manager_once(
    shared_node: Node, torch: Torch, tmp_path: Path, keep_house: Callable[..., BeatMachine]
) -> None:
    (tmp_path / "policy.toml").write_text("blocked_minutes = 0.02\n")
    enter("pm-1", "project-manager")
    developer, other = enter("developer-1", "developer"), enter("developer-2", "developer")
    ask(developer, "asks")
    for agent, blocked in (("developer-2", "the key is missing"), ("qa-1", "None."), ("pm-1", "no budget")):
        text = f"Completed: a\nCurrent: b\nBlocked: {blocked}"
        NovaOrchestrator(agent).send_message("operator", text, kind="status")
    shared_node.agent_worker("qa-1", "qa")
    keep_house(TORCH_CONFIG_DIR=str(tmp_path))
    found = until(lambda: len(told := escalated("pm-1")) == 2 and told, "both are brought before the manager")
    texts = {record.message.sender: record.message.message for record in found}
    assert "Its task asks waits: May I push?\nChoices: 1 yes | 2 no" in texts["developer-1"]
    assert "torch-tasks answer asks" in texts["developer-1"]
    assert "it is blocked: the key is missing" in texts[other.agent_id]
    # The manager itself is brought before a person; who says that nothing blocks it, before nobody.
    person = until(lambda: escalated("operator"), "a person hears of the manager")
    assert [record.message.sender for record in person] == ["pm-1"]
    # A new status ends the matter, another one that is blocked is a new one; what was told is not told again.
    NovaOrchestrator("developer-2").send_message(
        "operator", "Completed: a\nCurrent: b\nBlocked: the disk is full", kind="status"
    )
    until(lambda: len(escalated("pm-1")) == 3, "the new matter is told")
    assert [record.message.sender for record in escalated("pm-1")].count("developer-1") == 1
    assert len(escalated("operator")) == 1


@pytest.fixture
def client(own_broker: Broker, tmp_path: Path) -> Iterator[Torch]:
    """A client of a broker of which nobody else knows anything."""
    with client_of(own_broker, tmp_path, TORCH_OFFLINE_SECONDS="3600") as torch:
        own_broker.empty()
        yield torch


def doctor(**environment: str) -> str:
    """The line on messages."""
    argv, env = [TORCH_TASKS, "doctor", "--json"], {**os.environ, **environment}
    said = subprocess.run(argv, capture_output=True, check=False, timeout=60, env=env).stdout
    return next(str(finding["detail"]) for finding in json.loads(said) if finding["what"] == "messages")


def test_health_and_doctor_tell_how_messages_fare(client: Torch) -> None:
    enter("qa-1", "qa")
    assert SystemMonitor().get_system_health().status == "healthy"
    assert doctor() == "through the broker"
    nova = NovaOrchestrator()
    waits = [nova.send_message("qa-1", f"number {number}") for number in range(3)]
    fleet().inboxes.settle(nova.message(waits[0].id).message, MessageState.DEAD, note="not taken")
    kept = outbox_of(fleet()).keep(Message(sender="operator", target="qa-1", message="later"))
    health = SystemMonitor().get_system_health()
    assert (health.status, health.dead_messages, health.spooled_messages) == ("degraded", 1, 1)
    assert health.inboxes["qa-1"] >= 2
    assert "1 messages are dead" in health.reasons[0]
    assert "1 messages wait on this machine's disk" in health.reasons[1]
    assert doctor() == "through the broker, 1 wait on this disk to be sent"
    outbox_of(fleet()).drop(kept)
    nowhere = {"TORCH_BROKER_URL": "redis://127.0.0.1:1/0", "TORCH_BROKER_CONNECT_SECONDS": "0.2"}
    assert doctor(**nowhere) == "fallback: the broker is away, 0 wait on this disk"

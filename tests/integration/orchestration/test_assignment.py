"""A task is assigned to the best free agent, and falls back to all that are able."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from beats import BeatMachine
from clients import start_client
from nodes import AgentWorker, Broker, Node
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Priority, TaskSpec, TaskState
from torch_tasks.orchestration import TaskOrchestrator
from torch_tasks.orchestration.assignment import Assignment, AssignmentStatus, named_skills
from torch_tasks.tasks import recovery
from torch_tasks.transport.deliveries import list_of

PINNED = {"TORCH_SOFT_PIN_SECONDS": "1.5"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ask google to go.", "go"),
        ("ago, cargo, go-to, main.go and google", ""),
        ("Port it to C#. Not C++!", "c#"),
        ("plain C, please", "c"),
        ("a Node.js service", "node.js"),
        ("run node and .NET", "node"),
        ("(Python)/git, GIT", "git python"),
        ("python3 pythonic _python", ""),
        ("", ""),
    ],
)
def test_skills_are_named_by_whole_words(text: str, found: str) -> None:
    known = ["c", "c#", "git", "go", "js", "net", "node", "node.js", "python"]
    assert " ".join(named_skills(text, known)) == found


@pytest.fixture
def pair(node: Node) -> tuple[AgentWorker, AgentWorker]:
    """Two free developers: the first knows git, the second python."""
    return node.agent_worker("dev-1", skills=["git"], **PINNED), node.agent_worker("dev-2", skills=["python"], **PINNED)


@pytest.fixture
def assign(monkeypatch: pytest.MonkeyPatch, pair: object) -> Callable[..., Assignment]:
    """Assign a task that shall wait a short time for its agent."""
    monkeypatch.setattr(fleet().soft_pins, "_ms", 1500)
    return lambda prompt, **fields: TaskOrchestrator().assign_task({"prompt": prompt, "role": "developer", **fields})


def freeze(worker: AgentWorker) -> Any:
    return worker.process.send_signal(19)


def thaw(worker: AgentWorker) -> Any:
    return worker.process.send_signal(18)


def test_the_agent_whose_skill_is_named_gets_the_task_and_the_next_one_another(
    torch: Torch, assign: Callable[..., Assignment]
) -> None:
    first = assign("sleep 2 # in python")
    second = assign("sleep 2 # in python, too")
    third = assign("true # both are busy")
    assert (first.agent_id, second.agent_id) == ("dev-2", "dev-1")
    assert first.status is second.status is AssignmentStatus.ASSIGNED
    assert (third.agent_id, third.status) == (None, AssignmentStatus.QUEUED)
    assert assign("sleep 2", id=first.task_id).task_id == first.task_id
    ends = [torch.task(one.task_id).result(timeout=60) for one in (first, second, third)]
    assert [end.agent for end in ends[:2]] == ["dev-2", "dev-1"]
    assert all(end.succeeded for end in ends)
    assert torch.task(first.task_id).record().spec.agent is None


def test_a_task_for_which_nobody_is_able_waits_and_asks_for_an_agent(
    torch: Torch, assign: Callable[..., Assignment]
) -> None:
    waits = assign("true", role="qa", skills=["rust"])
    assert (waits.agent_id, waits.status) == (None, AssignmentStatus.UNROUTABLE)
    [wanted] = [json.loads(message) for message in fleet().deliveries.waiting(keys.SYSTEM_QUEUE)]
    assert wanted["headers"]["task"] == "torch.scale"
    assert torch.task(waits.task_id).record().unroutable
    torch.task(waits.task_id).cancel()
    asked: list[TaskSpec] = []
    TaskOrchestrator(spawn=asked.append).assign_task({"description": "true", "role": "nobody"})
    assert [spec.role for spec in asked] == ["nobody"]


def test_what_a_frozen_agent_does_not_begin_goes_to_another_though_the_client_is_gone(
    torch: Torch, pair: tuple[AgentWorker, AgentWorker], keep_house: Callable[..., BeatMachine]
) -> None:
    _, frozen = pair
    keep_house()
    client = start_client(
        "import os\n"
        "from torch_tasks.orchestration import TaskOrchestrator\n"
        "orchestrator = TaskOrchestrator()\n"
        "print('ready', flush=True); input()\n"
        "print(orchestrator.assign_task({'prompt': 'true # python', 'id': 'left-1'}).agent_id, flush=True)\n"
        "os._exit(0)",
        **PINNED,
    )
    assert client.stdout
    assert client.stdout.readline() == "ready\n"
    freeze(frozen)  # and before it counts as offline
    said, complained = client.communicate("now\n", timeout=60)
    assert (said, client.returncode) == ("dev-2\n", 0), complained
    assert torch.task("left-1").result(timeout=60).agent == "dev-1"
    thaw(frozen)
    until(lambda: fleet().deliveries.waiting(keys.agent_queue("dev-2")) == [], "nothing waits for it")
    ended = [entry for entry in torch.task("left-1").history() if entry.state is TaskState.SUCCEEDED]
    assert len(ended) == 1


def test_what_a_killed_agent_does_not_begin_goes_to_another(
    torch: Torch,
    pair: tuple[AgentWorker, AgentWorker],
    assign: Callable[..., Assignment],
    keep_house: Callable[..., BeatMachine],
) -> None:
    keep_house()
    pair[1].kill()
    given = assign("true # python")
    assert given.agent_id == "dev-2"
    assert torch.task(given.task_id).result(timeout=60).agent == "dev-1"
    until(lambda: fleet().soft_pins.due() == [], "no pin is left")


def test_what_an_agent_cannot_begin_because_it_became_busy_goes_to_another(
    torch: Torch,
    pair: tuple[AgentWorker, AgentWorker],
    assign: Callable[..., Assignment],
    keep_house: Callable[..., BeatMachine],
) -> None:
    keep_house()
    held = torch.enqueue("sleep 30", agent="dev-2")
    until(lambda: held.status is TaskState.RUNNING, "it is busy")
    freeze(pair[1])  # the fleet is told that it were free, and hears nothing else
    entry = fleet().registry.entry("dev-2")
    assert entry
    for state, task in ((AgentState.WORKING, held.id), (AgentState.READY, None)):
        fleet().registry.heartbeat(entry.model_copy(update={"current_task": task, "state": state}))
    given = assign("true # python")
    thaw(pair[1])
    assert given.agent_id == "dev-2"
    begun = time.monotonic()
    assert torch.task(given.task_id).result(timeout=60).agent == "dev-1"
    assert time.monotonic() - begun < 25, "it did not wait for the other task"
    held.cancel()


def test_a_ledger_that_the_broker_does_not_know_sends_no_second_message_of_a_task_that_waits_for_its_agent(
    assign: Callable[..., Assignment], pair: tuple[AgentWorker, AgentWorker], broker: Broker
) -> None:
    for worker in pair:
        freeze(worker)
    try:
        assert assign("true # in python").agent_id == "dev-2"
        broker.client.delete(keys.RECONCILED)
        recovery.restore_all()
        assert broker.client.llen(list_of("torch.agent.dev-2", Priority.NORMAL.step)) == 1
        assert broker.client.llen(list_of("torch.developer.any", Priority.NORMAL.step)) == 0
    finally:
        for worker in pair:
            thaw(worker)

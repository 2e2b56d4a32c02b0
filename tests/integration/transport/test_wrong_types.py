"""A key of another type than Torch keeps there stops nobody: it is named, and all go on once it is gone."""

from __future__ import annotations

import pytest
from nodes import AgentWorker, Broker, Node, NodeWorker
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.errors import WrongType
from torch_tasks.transport.deliveries import list_of

AGENT = "developer-1"
STEP = 6
PLACES = (
    keys.AGENT_REGISTRY,
    keys.AGENT_HEARTBEAT,
    keys.BROKER_STATE,
    keys.LEASES,
    keys.HOLDS,
    keys.NODE_REGISTRY,
    keys.SPAWN_STATES,
    keys.DEADLINES,
    keys.inbox(AGENT, "normal"),
)
"""Keys that a worker asks for without a task."""


def all_work_on(torch: Torch, *workers: AgentWorker | NodeWorker) -> None:
    assert torch.enqueue("echo on", agent=AGENT).result(timeout=30).answer == "on\n"
    for worker in workers:
        assert worker.status == "running"
        assert "Exception in thread" not in worker.logs()


def test_a_key_that_another_program_wrote_is_named_and_stops_nobody(node: Node, torch: Torch, broker: Broker) -> None:
    agent, machine = node.agent_worker(AGENT), node.node_worker()
    for place in PLACES:
        broker.client.delete(place)
        broker.client.set(place, "not Torch's")
        named = f"on the broker, the key {place} (a string) is of another type"
        until(lambda named=named: named in agent.logs() + machine.logs(), f"{place} is named", 20)  # type: ignore[misc]
        broker.client.delete(place)
        all_work_on(torch, agent, machine)


def test_a_task_waits_while_its_message_cannot_be_taken_or_settled(node: Node, torch: Torch, broker: Broker) -> None:
    agent = node.agent_worker(AGENT)
    broker.client.delete(keys.DELIVERIES)
    broker.client.set(keys.DELIVERIES, "not Torch's")
    task = torch.enqueue("echo late", agent=AGENT)
    until(lambda: f"this worker cannot take messages: on the broker, the key {keys.DELIVERIES}" in agent.logs(), "said")
    broker.client.delete(keys.DELIVERIES)
    assert task.result(timeout=30).answer == "late\n"
    all_work_on(torch, agent)


def test_a_task_in_the_pane_ends_there_although_its_agents_entry_cannot_be_written(
    node: Node, torch: Torch, broker: Broker
) -> None:
    agent = node.agent_worker(AGENT)
    task = torch.enqueue(
        f"echo once >> {node.folder}/ran; until test -e {node.folder}/go; do sleep 0.1; done", agent=AGENT
    )
    until((node.folder / "ran").exists, "it runs")
    broker.client.delete(keys.AGENT_REGISTRY)
    broker.client.set(keys.AGENT_REGISTRY, "not Torch's")
    (node.folder / "go").touch()
    until(lambda: f"the key {keys.AGENT_REGISTRY} (a string)" in agent.logs(), "it is named")
    broker.client.delete(keys.AGENT_REGISTRY)
    assert task.result(timeout=30).succeeded
    assert (node.folder / "ran").read_text() == "once\n"
    all_work_on(torch, agent)


def test_who_enqueues_is_told_which_key_it_is(torch: Torch, broker: Broker, empty: None) -> None:
    broker.client.set(keys.TASK_STATUS, "not Torch's")
    with pytest.raises(WrongType, match=rf"the key {keys.TASK_STATUS} \(a string\) is of another type .* Delete it"):
        torch.enqueue("echo", agent=AGENT)
    broker.client.delete(keys.TASK_STATUS)
    queue = list_of(keys.agent_queue(AGENT), STEP)
    broker.client.set(queue, "not Torch's")
    with pytest.raises(WrongType, match="is of another type than Torch keeps there"):
        torch.enqueue("echo", agent=AGENT)


def test_a_bell_that_is_none_is_replaced(node: Node, torch: Torch, broker: Broker) -> None:
    broker.client.set(keys.bell(keys.agent_queue(AGENT)), "not Torch's")
    task = torch.enqueue("echo rung", agent=AGENT)
    agent = node.agent_worker(AGENT)
    assert task.result(timeout=20).answer == "rung\n"
    all_work_on(torch, agent)

"""Whoever reads the broker puts copies of signed orders back: each was done, and does nothing a second time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clients import read_settings_anew
from nodes import Broker, Node, NodeWorker
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.errors import AgentNotFound
from torch_tasks.fleet import fleet
from torch_tasks.model.task import Priority
from torch_tasks.orchestration.node_tasks import retire, spawn

QUEUES = (keys.SYSTEM_QUEUE, keys.node_queue("node-a"))


@pytest.fixture
def node(torch: Torch, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setenv("TORCH_SIGNING", "enforce")
    read_settings_anew()
    node = Node("node-a", broker, torch)
    yield node
    node.close()
    monkeypatch.undo()
    read_settings_anew()


@contextmanager
def stopped(worker: NodeWorker) -> Iterator[None]:
    """What is sent meanwhile stays in its queue."""
    worker.process.send_signal(signal.SIGSTOP)
    yield
    worker.process.send_signal(signal.SIGCONT)


def test_a_copied_order_does_nothing_a_second_time(node: Node, torch: Torch, broker: Broker) -> None:
    worker = node.node_worker("dev-1:developer")
    until(lambda: is_online(torch, "dev-1"), "the declared agent is there")
    with stopped(worker):
        asked = [
            spawn.apply_async(("qa",), {"node": "node-a"}),
            retire.apply_async(("dev-1", {"by": "operator"}), queue=QUEUES[1]),
        ]
        copies = {queue: fleet().deliveries.waiting(queue) for queue in QUEUES}
        assert [len(messages) for messages in copies.values()] == [1, 1]
    outcomes = [one.get(timeout=60) for one in asked]
    assert (outcomes[0]["agent_id"], outcomes[1]) == ("qa-1", "")
    until(lambda: not is_online(torch, "dev-1"), "it has retired")
    torch.release("dev-1")
    before = until(lambda: is_online(torch, "dev-1") and torch.agent("dev-1").incarnation, "it is back")
    torch.retire("qa-1")
    for forgotten in broker.client.keys("nova:torch:done_order:*"):
        broker.client.delete(forgotten)
    for queue, messages in copies.items():
        fleet().deliveries.put(queue, messages[0], Priority.NORMAL.step)
    for name, task in (("torch.spawn", asked[0]), ("torch.retire", asked[1])):
        until(lambda what=f"{name} {task.id} was done before": what in worker.logs(), f"{name} was taken again")
    assert torch.spawn("developer").agent_id == "developer-1"  # and it goes on with the next order
    assert torch.agent("dev-1").incarnation == before
    assert {info.agent_id for info in torch.agents() if info.online} == {"dev-1", "developer-1"}


def is_online(torch: Torch, agent_id: str) -> bool:
    try:
        return torch.agent(agent_id).online
    except AgentNotFound:
        return False

"""No message stops a node: broken ones by the thousand, and every process, thread and valid task is still there.

``TORCH_TEST_LONG=1`` writes 10,000 of them, as ``make chaos`` does; ``TORCH_TEST_SEED`` writes others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil
import pytest
from beats import BeatMachine
from nodes import Broker, Node, ProcessNode
from waiting import until

from chaos.broken_messages import BrokenMessages
from torch_tasks import Torch, keys
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.fleet import fleet

LONG = os.environ.get("TORCH_TEST_LONG") == "1"
SEED = int(os.environ.get("TORCH_TEST_SEED", "7"))
BROKEN = 10_000 if LONG else 600
"""How many broken messages are written."""
BETWEEN = 50
"""After so many of them comes a valid task."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if LONG else 300)]


def threads(process: ProcessNode) -> int:
    return psutil.Process(process.process.pid).num_threads()


def test_broken_messages_end_no_thread_and_lose_no_task(
    node: Node, torch: Torch, broker: Broker, keep_house: Callable[..., BeatMachine]
) -> None:
    house = keep_house()
    agents = [node.agent_worker("developer-1"), node.agent_worker("developer-2")]
    workers: list[ProcessNode] = [*agents, *house.processes]
    assert torch.enqueue("echo first").result(timeout=30).answer == "first\n"  # so that the shared queue is read, too
    before = {worker.name: threads(worker) for worker in workers}
    queues = [
        *(keys.agent_queue(agent.agent_id) for agent in agents),
        keys.task_queue(None, ()),
        keys.SYSTEM_QUEUE,
        keys.node_queue("housekeeping-0"),
    ]
    inboxes = [
        keys.inbox(party, urgency) for party in ("developer-1", "operator") for urgency in ("normal", "emergency")
    ]
    broken = BrokenMessages(broker.client, queues, inboxes, SEED)
    tasks = []
    for number in range(BROKEN):
        broken.write()
        if number % BETWEEN == 0:
            tasks.append(torch.enqueue(f"echo {number}", agent=agents[len(tasks) % 2].agent_id))
        if number % 500 == 499:
            time.sleep(0.2)  # so that the broker's backlog is a fleet's, not a test's
    answers = [task.result(timeout=120).answer for task in tasks]
    assert answers == [f"{number}\n" for number in range(0, BROKEN, BETWEEN)]
    until(lambda: not any(map(fleet().deliveries.waiting, queues)), "every message is taken", 600 if LONG else 120)
    sent = NovaOrchestrator().send_message("developer-1", "echo heard")
    assert NovaOrchestrator().await_delivery(sent.id, timeout=60).state.arrived
    assert {worker.name: worker.status for worker in workers} == dict.fromkeys(before, "running")
    ended = [line for worker in workers for line in worker.logs().splitlines() if "Exception in thread" in line]
    assert ended == []
    assert {worker.name: threads(worker) >= before[worker.name] for worker in workers} == dict.fromkeys(before, True)
    assert len(fleet().refused.all()) > BROKEN / 20
    assert torch.enqueue("echo on").result(timeout=30).answer == "on\n"

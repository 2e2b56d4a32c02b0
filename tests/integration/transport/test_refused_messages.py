"""No message stops a node: what is not readable is named, goes to the dead letters, and every worker works on."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import forked
import psutil
import pytest
import redis
from hostile import BOMB, NO_JSON, WRONG, body, task_message
from machine import TORCH_TASKS
from nodes import AgentWorker, Broker, Node
from waiting import until

from torch_tasks import TaskState, Torch, keys
from torch_tasks.app import app
from torch_tasks.errors import InvalidTask, Unreadable
from torch_tasks.fleet import fleet
from torch_tasks.tasks.dead_letters import DeadLetters
from torch_tasks.tasks.system_task import SystemTask

pytestmark = pytest.mark.usefixtures("unsigned")

QUEUE = keys.agent_queue("developer-1")
MANY = 40


def command(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [TORCH_TASKS, *words]
    return forked.run(argv)


def refused() -> dict[str, str]:
    """Why each message was refused."""
    return {name: letter.why for name, letter in fleet().refused.all().items()}


def await_refused(count: int) -> dict[str, str]:
    until(lambda: len(refused()) >= count, f"{count} are refused", 40)
    assert len(refused()) == count
    return refused()


def works_on(worker: AgentWorker, torch: Torch) -> None:
    """The same process does the next task, and no thread of it has ended by an exception."""
    assert torch.enqueue("echo on", agent=worker.agent_id).result(timeout=20).answer == "on\n"
    assert worker.status == "running"
    assert "Exception in thread" not in worker.logs()
    assert "Traceback" not in worker.logs()


def test_whatever_lies_in_a_queue_is_refused_by_name_and_the_worker_works_on(
    node: Node, torch: Torch, broker: Broker
) -> None:
    worker = node.agent_worker("developer-1")
    texts = {**NO_JSON, **{name: json.dumps(one) for name, one in WRONG.items()}}
    for text in texts.values():
        broker.client.lpush(QUEUE, text)
    broker.client.lpush(QUEUE, b"\xff\xfe not text")
    found = await_refused(len(texts) + 1)
    works_on(worker, torch)
    assert set(broker.client.hkeys(keys.DEAD_LETTERS)) == found.keys()
    assert all(f"refused as {name}: {why}" in worker.logs() for name, why in found.items())
    listed = command("dead", "list")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in found)
    name = next(name for name, why in found.items() if "more than" not in why and "compression" in why)
    assert "compression" in command("dead", "show", name).stdout
    again = command("dead", "replay", name)
    assert again.returncode == 1
    assert f"dead letter {name} cannot be replayed" in again.stderr
    assert command("dead", "drop", name).returncode == 0
    assert name not in refused()


def test_a_small_message_that_unpacks_to_much_takes_no_memory(node: Node, torch: Torch, broker: Broker) -> None:
    worker = node.agent_worker("developer-1")
    process = psutil.Process(worker.process.pid)
    before = process.memory_info().rss
    for _ in range(MANY):
        bomb = task_message(headers__compression="application/x-gzip", body=BOMB)
        broker.client.lpush(QUEUE, json.dumps(bomb))
    found = await_refused(MANY)
    assert all("compression" in why for why in found.values())
    assert process.memory_info().rss - before < 50 << 20
    works_on(worker, torch)


def test_a_message_of_40_megabytes_stays_on_the_broker(node: Node, torch: Torch, broker: Broker) -> None:
    worker = node.agent_worker("developer-1")
    process = psutil.Process(worker.process.pid)
    before = process.memory_info().rss
    with redis.Redis.from_url(broker.url, socket_timeout=60) as patient:  # a slow disk takes its time for so much
        patient.lpush(QUEUE, json.dumps(task_message(body="A" * (40 << 20))))
        until(lambda: patient.hlen(keys.REFUSALS), "it is refused", 60)
    ((name, why),) = refused().items()
    assert "bytes, more than 16777216" in why
    assert process.memory_info().rss - before < 30 << 20
    works_on(worker, torch)
    with pytest.raises(Unreadable, match=f"dead letter {name} cannot be replayed: it has"):
        DeadLetters(fleet()).replay(name)


def invalid() -> list[dict[str, Any]]:
    """Messages of the right form that are no tasks of this worker."""
    spec = {"id": "t1", "prompt": "echo"}
    bodies = [[], [5], [{**spec, "prompt": 5}], [{**spec, "role": "any"}], [{**spec, "made_up": 1}], [None]]
    return [
        *(task_message(body=body([arguments, {}, {}])) for arguments in bodies),
        task_message(body=body([[spec], {"made_up": 1}, {}])),
        task_message(headers__task="no.such.task"),
        task_message(headers={}, body=body([1, 2])),
        task_message(headers__eta="some day"),
    ]


def test_a_message_with_the_wrong_fields_is_refused_and_costs_the_task_of_its_id_nothing(
    node: Node, torch: Torch, broker: Broker
) -> None:
    task = torch.enqueue("echo mine", agent="developer-1", id="t1")
    waiting = broker.client.lrange(QUEUE + "\x06\x166", 0, -1)
    broker.client.delete(QUEUE + "\x06\x166")
    for one in invalid():
        broker.client.lpush(QUEUE, json.dumps(one))
    broker.client.lpush(QUEUE + "\x06\x166", *waiting)
    worker = node.agent_worker("developer-1")
    assert task.result(timeout=20).answer == "mine\n"
    await_refused(len(invalid()))
    assert task.record().state is TaskState.SUCCEEDED
    assert torch.enqueue("echo on", agent="developer-1").result(timeout=20).answer == "on\n"
    assert worker.status == "running"
    assert "Exception in thread" not in worker.logs()


app.loader.import_default_modules()
SYSTEM_TASKS = sorted(name for name, task in app.tasks.items() if isinstance(task, SystemTask))


def test_system_tasks_with_wrong_arguments_are_refused_by_name_and_the_node_works_on(
    node: Node, torch: Torch, broker: Broker
) -> None:
    worker = node.node_worker()
    assert {"torch.retire", "torch.checkin", "torch.spawn", "torch.scale", "torch.housekeeping"} <= set(SYSTEM_TASKS)
    for name in SYSTEM_TASKS:
        wrong = body([[[5], {"made": "up"}, None, 7], {}, {}])
        broker.client.lpush(
            keys.SYSTEM_QUEUE, json.dumps(task_message(headers__task=name, headers__id=name, body=wrong))
        )
    order = json.dumps(task_message(headers__task="torch.retire", body=body([["developer-1", {"by": 5}], {}, {}])))
    broker.client.lpush(keys.node_queue(node.name), order)
    found = await_refused(len(SYSTEM_TASKS) + 1)
    assert {f"it is no valid {name}" for name in SYSTEM_TASKS} == {why.partition(":")[0] for why in found.values()}
    assert any("1.by: " in why for why in found.values())
    assert torch.spawn("developer").agent_id
    assert worker.status == "running"
    assert "Exception in thread" not in worker.logs()


def test_what_is_too_long_as_a_whole_or_too_deep_is_not_accepted(torch: Torch, empty: None) -> None:
    with pytest.raises(InvalidTask, match="TORCH_TASK_LIMIT_BYTES"):
        torch.enqueue("read the context", context={"bulk": "x" * (40 << 20)})
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    with pytest.raises(InvalidTask, match="deeper than 40"):
        torch.enqueue("read the context", context={"deep": deep})
    assert torch.tasks() == []

"""What a program that enqueues tasks may rely on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nodes import AgentWorker, Broker, Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.errors import AgentNotFound, InvalidTask, TaskFailed, TaskNotFinished, TaskNotFound


@pytest.fixture(scope="module")
def agent(shared_node: Node) -> AgentWorker:
    """The agent of this module's tests."""
    return shared_node.agent_worker("developer-1", skills=["python"])


def test_a_task_goes_from_queued_over_running_to_its_end_and_its_record_tells(
    agent: AgentWorker, torch: Torch, tmp_path: Path
) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    task = torch.enqueue(f"touch {tmp_path}/began; until [ -e {tmp_path}/end ]; do sleep 0.02; done; echo done")
    until((tmp_path / "began").exists, "the task runs")
    running = task.record()
    assert (running.state, running.agent, running.node) == (TaskState.RUNNING, "developer-1", "node-a")
    assert (running.attempts, running.result, running.finished_at) == (1, None, None)
    with pytest.raises(TaskNotFinished, match=f"{task.id} is running after 0.1 s"):
        task.result(timeout=0.1)
    (tmp_path / "end").touch()
    result = task.result(timeout=20)
    record = task.record()
    assert (record.state, record.result) == (TaskState.SUCCEEDED, result)
    moments = [began, record.created_at, record.assigned_at, record.started_at, record.finished_at]
    assert moments == sorted(moments)


def test_the_result_is_there_for_another_program(agent: AgentWorker, torch: Torch) -> None:
    task = torch.enqueue("echo told twice; echo é 🚒")
    script = f"from torch_tasks import Torch; print(ascii(Torch().task({task.id!r}).result(20).answer))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert other.stdout.strip() == ascii("told twice\né 🚒\n")
    assert task.result(timeout=20).answer == "told twice\né 🚒\n"


def test_a_failed_task_is_a_result_and_raises_only_when_asked(agent: AgentWorker, torch: Torch) -> None:
    result = torch.enqueue("echo sorry; (exit 9)", id="sorry-1").result(timeout=20)
    assert (result.status, result.exit_code, result.answer) == (TaskState.FAILED, 9, "sorry\n")
    with pytest.raises(TaskFailed, match="sorry-1 failed on developer-1: exit code 9"):
        result.raise_for_status()


def test_a_result_is_told_soon_after_the_end(agent: AgentWorker, torch: Torch) -> None:
    torch.enqueue("true").result(timeout=20)
    began = time.monotonic()
    for _ in range(5):
        torch.enqueue("true").result(timeout=20)
    assert time.monotonic() - began < 5, "an answer waits for a poll"


def test_the_latest_tasks_are_listed_newest_first(agent: AgentWorker, torch: Torch) -> None:
    ids = [torch.enqueue("true").id for _ in range(3)]
    assert [record.spec.id for record in torch.tasks(limit=3)] == ids[::-1]
    assert all(torch.task(task_id).result(timeout=20).succeeded for task_id in ids)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": " \n"}, "prompt.* is empty"),
        ({"prompt": "a\0b"}, "NUL"),
        ({"prompt": "\ud800"}, "not valid Unicode"),
        ({"prompt": "x" * ((1 << 20) + 1)}, "1,048,577 bytes"),
        ({"prompt": "true", "role": "any"}, "role"),
        ({"prompt": "true", "skills": ["two words"]}, "'two-words'"),
        ({"prompt": "true", "timeout": 0}, "timeout"),
        ({"prompt": "true", "timeout": float("nan")}, "timeout"),
        ({"prompt": "true", "priority": "soon"}, "priority"),
        ({"prompt": "true", "deadline": datetime(2030, 1, 1)}, "deadline"),
        ({"prompt": "true", "id": "a b"}, "id"),
        ({"prompt": "true", "check": ""}, "check"),
    ],
)
def test_what_cannot_be_accepted_is_refused_in_words_and_leaves_nothing(
    torch: Torch, fields: dict[str, object], words: str
) -> None:
    before = [record.spec.id for record in torch.tasks()]
    with pytest.raises(InvalidTask, match=words):
        torch.enqueue(**fields)
    assert [record.spec.id for record in torch.tasks()] == before


def test_ids_that_nobody_knows_are_named(torch: Torch) -> None:
    with pytest.raises(TaskNotFound, match="nothing-1"):
        torch.task("nothing-1").result(timeout=1)
    with pytest.raises(TaskNotFound, match="nothing-1"):
        torch.task("nothing-1").cancel()
    with pytest.raises(AgentNotFound, match="nobody-1"):
        torch.agent("nobody-1")


def test_clients_of_many_threads_and_processes_share_one_fleet(
    agent: AgentWorker, torch: Torch, tmp_path: Path
) -> None:
    script = (
        "from torch_tasks import Torch\n"
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        f"one = lambda n: Torch().enqueue('echo ran >> {tmp_path}/effect').result(60).succeeded\n"
        "assert all(Pool(4).map(one, range(10)))"
    )
    clients = [subprocess.Popen([sys.executable, "-c", script], env=os.environ) for _ in range(2)]
    assert [client.wait(60) for client in clients] == [0, 0]
    assert (tmp_path / "effect").read_text() == "ran\n" * 20


def test_tasks_are_accepted_and_done_after_the_broker_lost_all_its_data(
    agent: AgentWorker, torch: Torch, broker: Broker
) -> None:
    torch.enqueue("true", role="developer").result(timeout=20)
    broker.client.flushall()
    assert torch.enqueue("echo after", role="developer").result(timeout=20).answer == "after\n"

"""Tasks that no agent takes or goes on with: they say so, are cancelled at once, and end by their deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import forked
import pytest
from beats import BeatMachine
from celery import chord
from celery.result import AsyncResult
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Work
from machine import TORCH_TASKS
from nodes import Node
from waiting import until

from torch_tasks import TaskSpec, TaskState, Torch, keys
from torch_tasks.app import app
from torch_tasks.errors import NotAnswered
from torch_tasks.fleet import fleet
from torch_tasks.model import metrics
from torch_tasks.model.task import FailureKind, TaskResult
from torch_tasks.orchestration.housekeeping import run_housekeeping
from torch_tasks.orchestration.scaling import backlogs
from torch_tasks.system.tally import tally
from torch_tasks.tasks.run import run

AT_ONCE = 12.0
"""Less than anybody waits for an agent's worker, and enough for a command on a busy machine."""


def command(*words: str, code: int = 0) -> str:
    """What ``torch-tasks`` prints, at once."""
    began = time.monotonic()
    done = forked.run([TORCH_TASKS, *words])
    assert done.returncode == code, done.stdout + done.stderr
    assert time.monotonic() - began < AT_ONCE
    return done.stdout + done.stderr


def waiting(queue: str) -> int:
    """How many messages wait in a queue."""
    return len(fleet().deliveries.waiting(queue))


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


# ── an agent that does not exist ─────────────────────────────────────────────────────────────────────────────────


def test_a_task_for_an_agent_that_does_not_exist_says_so_and_is_cancelled_at_once(torch: Torch, empty: None) -> None:
    task = torch.enqueue("true", agent="nobody-1")
    assert "agent nobody-1, which it asks for, does not exist" in command("task", task.id)
    assert [record.waits for record in torch.tasks()] == [task.record().waits]
    assert command("cancel", task.id) == f"task {task.id} cancelled\n"
    assert waiting(keys.agent_queue("nobody-1")) == 0
    assert AsyncResult(task.id, app=app).state == "REVOKED"


def test_a_task_that_no_agent_is_able_to_do_says_what_is_missing(torch: Torch, empty: None) -> None:
    task = torch.enqueue("true", role="qa", skills=["rust", "python"])
    assert task.record().waits == "no agent with role qa and skills python, rust is online"
    assert torch.enqueue("true").record().waits == "no agent is online"


def test_a_cancelled_task_leaves_its_queue_and_what_the_autoscaler_sees(torch: Torch, empty: None) -> None:
    tasks = [torch.enqueue("true", role="qa", priority=priority) for priority in ("urgent", "normal", "normal", "low")]
    assert [one.waiting for one in backlogs(fleet())] == [4]
    for task in tasks[:2]:
        task.cancel()
    assert [one.waiting for one in backlogs(fleet())] == [2]
    for task in tasks[2:]:
        task.cancel()
    assert backlogs(fleet()) == []


def test_a_cancelled_task_is_counted_once_whoever_cancels_it(torch: Torch, empty: None) -> None:
    run_housekeeping(fleet())
    before = _counted_as_cancelled()
    task = torch.enqueue("true", role="qa")
    command("cancel", task.id)
    task.cancel()
    run_housekeeping(fleet())
    run_housekeeping(fleet())
    assert _counted_as_cancelled() == before + 1


def _counted_as_cancelled() -> float:
    """How many tasks this process has counted that were cancelled at no agent."""
    return sum(tally().series().get((metrics.TASKS_ENDED.name, ("none", "none", "cancelled")), [0.0]))


def test_a_process_killed_before_it_took_the_message_out_leaves_that_to_housekeeping(torch: Torch, empty: None) -> None:
    task, other = torch.enqueue("true", role="qa"), torch.enqueue("true", role="dev")
    fleet().records.end_unowned(TaskResult.cancelled(task.id, "cancelled"))
    fleet().records.end_unowned(TaskResult.cancelled(other.id, "cancelled"))
    assert fleet().deliveries.withdraw("torch.dev.any", other.id)
    run_housekeeping(fleet())
    assert backlogs(fleet()) == []
    assert fleet().deliveries.set_aside() == []
    assert AsyncResult(task.id, app=app).state == AsyncResult(other.id, app=app).state == "REVOKED"


def test_a_chord_hears_of_a_part_that_was_cancelled_before_it_began(torch: Torch, empty: None) -> None:
    parts = [TaskSpec(prompt="true", agent="nobody-1") for _ in range(2)]
    body = chord([run.s(part) for part in parts])(run.s(TaskSpec(prompt="true", agent="nobody-1")))
    for part in parts:
        torch.task(part.id).cancel()
    with pytest.raises(Exception, match="cancelled"):
        body.get(timeout=10)


# ── an agent that will not come back ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def left(node: Node, torch: Torch, tmp_path: Path) -> Callable[..., str]:
    """Makes a task that runs, for this one agent, whose worker and pane are killed then."""

    def make(**fields: object) -> str:
        worker = node.agent_worker("developer-1")
        task = torch.enqueue(f"touch {tmp_path}/began; sleep 600", agent="developer-1", **fields)
        until((tmp_path / "began").exists, "it runs")
        worker.kill()
        worker.end_terminal()
        until(lambda: not torch.agent("developer-1").online, "its agent is gone", 30)
        return task.id

    return make


def test_a_running_task_whose_agent_is_gone_says_so_and_is_cancelled_at_once(
    torch: Torch, left: Callable[..., str]
) -> None:
    task = torch.task(left())
    waits = "developer-1, which has it, is gone; it goes on when that agent is back"
    assert (task.record().state, task.record().waits) == (TaskState.RUNNING, waits)
    assert waits in command("task", task.id)
    assert command("cancel", task.id) == f"task {task.id} cancelled\n"
    assert task.result(timeout=1).error.message == "cancelled while its agent was gone"


def test_a_task_that_was_cancelled_meanwhile_is_interrupted_when_its_agent_is_back(node: Node, torch: Torch) -> None:
    fake = FakeKind(node, scenario=Scenario(turns=(Turn((Work(600),), match="work for long"),)))
    worker = fake.worker()
    task = torch.enqueue("work for long", agent="developer-1")
    until(fake.prompts, "it works")
    pane = worker.pane()
    worker.kill()
    until(lambda: not torch.agent("developer-1").online, "its agent is gone", 30)
    task.cancel()
    assert task.result(timeout=1).status is TaskState.CANCELLED
    assert not fake.cli.records("interrupted")
    worker.restart()
    until(lambda: fake.cli.records("interrupted"), "the program is interrupted")
    assert torch.enqueue("and then", agent="developer-1").result(timeout=30).succeeded
    assert worker.pane() == pane
    assert len(fake.prompts()) == 2


def test_an_answer_for_an_agent_that_is_gone_is_refused_at_once(torch: Torch, left: Callable[..., str]) -> None:
    task = torch.task(left())
    fleet().client.hset(keys.task_record(task.id), mapping={"state": "waiting", "question": '{"text": "Go on?"}'})
    assert "developer-1, which asks" in command("answer", task.id, "1", code=1)
    with pytest.raises(NotAnswered, match="is gone"):
        task.answer("1")


# ── deadlines ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tasks_that_no_agent_takes_end_by_their_deadline(
    torch: Torch, empty: None, keep_house: Callable[..., BeatMachine]
) -> None:
    tasks = [torch.enqueue("true", deadline=soon(), **of) for of in ({"agent": "nobody-1"}, {"role": "qa"})]
    later = torch.enqueue("true", agent="nobody-1", deadline=datetime.now(UTC) + timedelta(hours=1))
    keep_house()
    for task in tasks:
        error = task.result(timeout=30).error
        assert error.kind is FailureKind.DEADLINE
        assert "passed before an agent began" in error.message
        until(lambda one=task: AsyncResult(one.id, app=app).state == "FAILURE", "Celery knows")
    assert later.status is TaskState.QUEUED
    assert waiting(keys.agent_queue("nobody-1")) == 1
    assert backlogs(fleet()) == []


def test_a_running_task_whose_agent_is_gone_ends_by_its_deadline(
    torch: Torch, left: Callable[..., str], keep_house: Callable[..., BeatMachine]
) -> None:
    task = torch.task(left(deadline=datetime.now(UTC) + timedelta(seconds=20)))
    keep_house()
    result = task.result(timeout=60)
    assert result.error.kind is FailureKind.DEADLINE
    assert "passed before an agent ended it" in result.error.message

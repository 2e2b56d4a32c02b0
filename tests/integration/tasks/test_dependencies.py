"""Tasks that begin after others: when they begin, how they fail, and what no death of a process and no broker loses."""

from __future__ import annotations

import json
from pathlib import Path

import forked
import pytest
from celery.result import AsyncResult
from clients import start_client
from machine import TORCH_TASKS
from nodes import Broker, Node
from waiting import until

from torch_tasks import Task, TaskState, Torch, keys
from torch_tasks.app import app
from torch_tasks.errors import InvalidTask, UnknownDependency
from torch_tasks.fleet import fleet
from torch_tasks.model.task import FailureKind, TaskResult
from torch_tasks.orchestration.housekeeping import run_housekeeping
from torch_tasks.tasks import recovery

NOBODY = keys.agent_queue("nobody")
"""What is sent there stays there."""


def command(*words: str, code: int = 0) -> str:
    done = forked.run([TORCH_TASKS, *words])
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def enqueue(torch: Torch, name: str, *after: str | Task) -> Task:
    """A task that no agent takes."""
    return torch.enqueue(f"echo {name}", id=name, agent="nobody", after=after)


def end(task_id: str, state: TaskState = TaskState.SUCCEEDED) -> None:
    """Have a task end as a worker does that is killed right after."""
    if state is TaskState.SUCCEEDED:
        fleet().records.move(task_id, TaskState.ASSIGNED)
    fleet().records.finish(TaskResult(task_id=task_id, status=state))


def keep_house() -> None:
    """Have every chore run now."""
    fleet().client.delete(keys.HOUSEKEEPING)
    run_housekeeping(fleet())


def states(torch: Torch) -> dict[str, str]:
    return {record.spec.id: str(record.state) for record in torch.tasks()}


# ── beginning ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_begins_when_all_that_it_waits_for_have_succeeded(node: Node, torch: Torch, tmp_path: Path) -> None:
    def step(name: str, *after: Task) -> Task:
        prompt = f"until [ -e {tmp_path}/{name} ]; do sleep 0.02; done; echo {name} >> {tmp_path}/order"
        return torch.enqueue(prompt, id=name, after=after)

    node.agent_worker("developer-1")
    node.agent_worker("developer-2")
    one, two = step("one"), step("two")
    last = step("last", step("middle", one, two))
    (tmp_path / "last").touch()
    (tmp_path / "middle").touch()
    assert last.status is torch.task("middle").status is TaskState.PENDING
    (tmp_path / "two").touch()
    assert two.result(timeout=30).succeeded
    assert torch.task("middle").status is TaskState.PENDING
    (tmp_path / "one").touch()
    assert last.result(timeout=30).succeeded
    assert (tmp_path / "order").read_text().split() == ["two", "one", "middle", "last"]
    assert AsyncResult("last", app=app).get(timeout=20)["task_id"] == "last"


def test_a_waiting_task_says_for_which_and_is_in_no_queue(torch: Torch, empty: None) -> None:
    enqueue(torch, "first")
    assert command("run", "--id", "second", "--agent", "nobody", "--after", "firs", "echo 2") == "second\n"
    assert torch.task("second").record().waits == "for first: echo first"
    shown = command("task", "second")
    assert "pending" in shown
    assert "for first: echo first" in shown
    listed = {one["spec"]["id"]: one["waits"] for one in json.loads(command("tasks", "--state", "pending", "--json"))}
    assert listed == {"second": "for first: echo first"}
    assert len(fleet().deliveries.waiting(NOBODY)) == 1


def test_what_succeeded_already_is_not_waited_for(torch: Torch, empty: None) -> None:
    enqueue(torch, "first")
    end("first")
    assert enqueue(torch, "second", "first").status is TaskState.QUEUED


# ── failing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_fails_by_name_when_one_that_it_waits_for_fails(node: Node, torch: Torch) -> None:
    node.agent_worker("developer-1")
    first = torch.enqueue("sleep 0.5; exit 3", id="first")
    tasks = [torch.enqueue("true", id="second", after=first), torch.enqueue("true", id="third", after="second")]
    errors = [task.result(timeout=30).error for task in tasks]
    assert [error.kind for error in errors] == [FailureKind.DEPENDENCY] * 2
    assert errors[0].message == "it was to begin after task first, which is failed: sleep 0.5; exit 3"
    assert errors[1].message == "it was to begin after task second, which is failed: true"
    until(lambda: fleet().deliveries.set_aside() == [], "both messages are settled")
    assert [AsyncResult(task.id, app=app).state for task in tasks] == ["FAILURE"] * 2


def test_a_task_fails_by_name_when_one_that_it_waits_for_is_cancelled(torch: Torch, empty: None) -> None:
    first = enqueue(torch, "first")
    chain = [enqueue(torch, f"next-{n}", f"next-{n - 1}" if n else "first") for n in range(50)]
    first.cancel()
    assert {task.status for task in chain} == {TaskState.FAILED}
    assert "after task first, which is cancelled: echo first" in chain[0].result(timeout=1).error.message
    assert enqueue(torch, "late", "first").result(timeout=1).error.kind is FailureKind.DEPENDENCY


def test_a_waiting_task_is_cancelled_at_once(torch: Torch, empty: None) -> None:
    enqueue(torch, "first")
    second = enqueue(torch, "second", "first")
    third = enqueue(torch, "third", "second")
    assert command("cancel", "second") == "task second cancelled\n"
    assert third.status is TaskState.FAILED
    end("first")
    keep_house()
    assert second.status is TaskState.CANCELLED
    assert fleet().deliveries.set_aside() == []


def test_what_nobody_knows_is_refused_by_name_and_leaves_nothing(torch: Torch, empty: None) -> None:
    with pytest.raises(UnknownDependency, match="task second is to begin after nonesuch, and there is no such task"):
        enqueue(torch, "second", "nonesuch")
    with pytest.raises(InvalidTask, match="task second would wait for itself"):
        enqueue(torch, "second", "second")
    assert "there is no such task" in command("run", "--after", "nonesuch", "true", code=2)
    assert states(torch) == {}
    assert fleet().deliveries.set_aside() == []
    assert fleet().ledger.summary().open == 0


# ── who dies ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.FAILED])
def test_a_worker_killed_when_it_has_ended_a_task_leaves_the_rest_to_housekeeping(
    torch: Torch, empty: None, state: TaskState
) -> None:
    enqueue(torch, "first")
    enqueue(torch, "second", "first")
    enqueue(torch, "third", "second")
    end("first", state)
    assert states(torch)["second"] == "pending"
    keep_house()
    keep_house()
    if state is TaskState.SUCCEEDED:
        assert states(torch) == {"first": "succeeded", "second": "queued", "third": "pending"}
        assert len(fleet().deliveries.waiting(NOBODY)) == 2  # the first one's was never taken
    else:
        assert states(torch) == dict.fromkeys(("first", "second", "third"), "failed")


DEATHS = {
    "before it has a record": "records.TaskRecords.accept = die",
    "when it has a record and its message is set aside": "set_aside.settle = die",
    "when it is published": "publishing._note = die",
}


@pytest.mark.parametrize("ended_meanwhile", [False, True], ids=["it waits", "what it waits for ended meanwhile"])
@pytest.mark.parametrize("death", DEATHS)
def test_an_enqueuer_killed_between_any_two_steps_loses_nothing_and_starts_nothing_twice(
    torch: Torch, empty: None, death: str, ended_meanwhile: bool
) -> None:
    enqueue(torch, "first")
    client = start_client(
        "import os, signal\n"
        "import torch_tasks.store.tasks as records\n"
        "from torch_tasks.tasks import publishing, set_aside\n"
        "def die(*args, **options): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{DEATHS[death]}\n"
        "torch.enqueue('echo second', id='second', agent='nobody', after=['first'])\n"
    )
    client.communicate(timeout=60)
    assert client.returncode == -9
    if ended_meanwhile:
        end("first")

    def is_settled() -> bool:
        recovery.settle()
        keep_house()
        found = states(torch).get("second"), fleet().deliveries.set_aside()
        return found == (("queued", []) if ended_meanwhile else ("pending", ["second"]))

    until(is_settled, "it stands where it belongs", 30)
    recovery.restore_all()
    keep_house()
    if not ended_meanwhile:
        end("first")
        keep_house()
    assert states(torch)["second"] == "queued"
    ids = [json.loads(message)["headers"]["id"] for message in fleet().deliveries.waiting(NOBODY)]
    assert ids.count("second") == 1


# ── a broker that forgot ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [None, TaskState.SUCCEEDED, TaskState.FAILED])
def test_a_broker_that_forgot_learns_again_who_waits_for_whom_and_how_that_ended(
    torch: Torch, broker: Broker, empty: None, state: TaskState | None
) -> None:
    enqueue(torch, "first")
    enqueue(torch, "second", "first")
    if state:
        end("first", state)
        recovery.settle_and_close()
    broker.client.flushall()
    recovery.restore_all()
    keep_house()
    expected = {None: "pending", TaskState.SUCCEEDED: "queued", TaskState.FAILED: "failed"}[state]
    assert states(torch) == {"first": str(state or "queued"), "second": expected}
    if state is None:
        end("first")
        keep_house()
        assert states(torch)["second"] == "queued"

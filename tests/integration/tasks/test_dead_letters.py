"""Tries, retries, and what becomes of a task whose tries are used up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from celery import chain
from machine import TORCH_TASKS
from nodes import Broker, Node
from waiting import until

from torch_tasks import Task, TaskSpec, TaskState, Torch
from torch_tasks.errors import NotDead
from torch_tasks.model.task import FailureKind
from torch_tasks.tasks.run import run

CRASH = "kill -9 $PPID $$"
"""Ends the agent's program and its shell."""


def crashing(folder: Path) -> str:
    """A script that crashes its agent until a file appears; each try adds its agent to a file."""
    return f"echo $TORCH_AGENT_ID >> {folder}/tries\n[ -e {folder}/mended ] || {CRASH}\necho well"


def command(*words: str) -> str:
    """What ``torch-tasks`` prints."""
    done = forked.run([TORCH_TASKS, *words])
    assert done.returncode == 0, done.stderr
    return done.stdout


def died(torch: Torch, folder: Path) -> Task:
    """A task that has used up its tries."""
    task = torch.enqueue(crashing(folder), max_retries=1)
    assert task.result(timeout=40).status is TaskState.DEAD
    return task


def test_a_task_out_of_retries_is_dead_and_says_why(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.agent_worker("developer-1")
    task = died(torch, tmp_path)
    record = task.record()
    assert record.result.error.kind is FailureKind.AGENT_CRASHED
    assert record.attempts == 2
    assert [one.spec.id for one in torch.dead()] == [task.id]
    assert [str(entry.state) for entry in task.history()] == [
        "assigned",
        "running",
        "queued",
        "assigned",
        "running",
        "dead",
    ]
    assert torch.enqueue("echo next").result(timeout=20).answer == "next\n"


def test_a_task_that_may_not_be_tried_again_is_dead_after_its_first_crash(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    node.agent_worker("developer-1")
    task = torch.enqueue(crashing(tmp_path), max_retries=0)
    assert task.result(timeout=40).status is TaskState.DEAD
    assert [one.spec.id for one in torch.dead()] == [task.id]
    (tmp_path / "mended").touch()
    task.replay()
    assert task.result(timeout=40).succeeded


def test_a_dead_task_is_replayed_with_its_id_its_history_and_all_its_retries(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    node.agent_worker("developer-1")
    task = died(torch, tmp_path)
    task.replay()
    until(lambda: task.record().attempts == 4, "it has used up its new retries", 40)
    assert task.result(timeout=40).status is TaskState.DEAD
    (tmp_path / "mended").touch()
    task.replay()
    result = task.result(timeout=40)
    assert (result.status, result.answer, result.attempts) == (TaskState.SUCCEEDED, "well\n", 5)
    assert torch.dead() == []
    assert [entry.note for entry in task.history()].count("replayed") == 2


def test_a_replayed_task_still_has_its_place_in_a_chain(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.agent_worker("developer-1")
    first = TaskSpec(prompt=crashing(tmp_path), max_retries=1)
    second = TaskSpec(prompt="cat $TORCH_CONTEXT")
    chain(run.s(first), run.s(second)).apply_async()
    assert torch.task(first.id).result(timeout=40).status is TaskState.DEAD
    (tmp_path / "mended").touch()
    torch.task(first.id).replay()
    until(lambda: any(record.spec.id == second.id for record in torch.tasks()), "the chain goes on", 40)
    assert "well" in torch.task(second.id).result(timeout=40).answer


def test_dead_letters_are_listed_shown_replayed_and_dropped_from_the_command_line(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    node.agent_worker("developer-1")
    task = died(torch, tmp_path)
    assert task.id in command("dead", "list")
    listed = json.loads(command("dead", "list", "--json"))
    assert [(one["spec"]["id"], one["state"]) for one in listed] == [(task.id, "dead")]
    shown = command("dead", "show", task.id)
    assert "agent crashed" in shown
    assert "history" in shown
    (tmp_path / "mended").touch()
    command("dead", "replay", task.id)
    assert task.result(timeout=40).succeeded
    (tmp_path / "mended").unlink()
    again = died(torch, tmp_path)
    command("dead", "drop", again.id)
    assert torch.dead() == []
    assert again.status is TaskState.DEAD


def test_who_replays_a_task_is_told_what_failed_because_of_it(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.agent_worker("developer-1")
    first = torch.enqueue(crashing(tmp_path), id="first", max_retries=0)
    second = torch.enqueue("true", id="second", title="the second", after=first)
    third = torch.enqueue("true", id="third", after=second)
    assert third.result(timeout=40).status is TaskState.FAILED
    (tmp_path / "mended").touch()
    done = forked.run([TORCH_TASKS, "dead", "replay", "first"])
    assert done.stdout == "task first queued again\n"
    said = done.stderr.splitlines()
    assert said[0].startswith("task second (the second) had failed because of it, and stays so: enqueue it again")
    assert said[1].startswith("task third (true) had failed")
    assert "torch-tasks run --after first" in said[1]
    assert first.result(timeout=40).succeeded


def test_what_is_not_dead_is_neither_replayed_nor_dropped(node: Node, torch: Torch) -> None:
    node.agent_worker("developer-1")
    task = torch.enqueue("true")
    assert task.result(timeout=20).succeeded
    with pytest.raises(NotDead, match=task.id):
        task.replay()
    done = forked.run([TORCH_TASKS, "dead", "drop", task.id])
    assert done.returncode == 1
    assert task.id in done.stderr


def test_a_task_is_tried_again_by_another_agent_if_one_is_free(
    new_node: Callable[[str], Node], torch: Torch, tmp_path: Path
) -> None:
    node = new_node("node-a")
    node.agent_worker("developer-1")
    node.agent_worker("developer-2")
    script = f"echo $TORCH_AGENT_ID >> {tmp_path}/tries\n[ $(wc -l < {tmp_path}/tries) -gt 1 ] || {CRASH}"
    result = torch.enqueue(script, role="developer").result(timeout=40)
    assert result.succeeded
    first, second = (tmp_path / "tries").read_text().split()
    assert first != second
    assert result.agent == second


def test_a_retry_can_be_cancelled_while_it_waits(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.agent_worker("developer-1", TORCH_RETRY_BACKOFF_SECONDS="5")
    task = torch.enqueue(crashing(tmp_path))

    def waits_for_its_next_try() -> bool:
        record = task.record()  # looked at once: before the first try it is queued, too
        return (record.state, record.attempts) == (TaskState.QUEUED, 1)

    until(waits_for_its_next_try, "it waits for its next try")
    task.cancel()
    assert task.result(timeout=30).status is TaskState.CANCELLED
    assert torch.enqueue("echo next").result(timeout=30).answer == "next\n"
    assert len((tmp_path / "tries").read_text().split()) == 1


def test_an_empty_place_of_the_dead_is_said_to_be_empty(broker: Broker, torch: Torch) -> None:
    broker.empty()
    assert json.loads(command("dead", "list", "--json")) == []

"""Celery's canvas with agents, on pytest-celery's setup: chains, groups and chords of tasks."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult
from pytest_celery import CeleryTestSetup

from torch_tasks import TaskSpec, TaskState, Torch
from torch_tasks.errors import TaskFailed
from torch_tasks.tasks.run import run

SECONDS = 30


def task(prompt: str, **fields: object) -> TaskSpec:
    """A task for the one agent of the setup."""
    return TaskSpec(prompt=prompt, role="developer", **fields)


@pytest.fixture(autouse=True)
def ready(celery_setup: CeleryTestSetup) -> None:
    """The nodes of the setup take tasks."""
    assert celery_setup.ready()


def test_a_task_sent_by_celery_is_a_task_of_torch(torch: Torch) -> None:
    spec = task("echo hello")
    result = run.delay(spec)
    assert result.id == spec.id
    assert result.get(timeout=SECONDS)["answer"] == "hello\n"
    assert torch.task(spec.id).record().state is TaskState.SUCCEEDED


@pytest.mark.parametrize(
    "send",
    [
        lambda: run.delay("echo hello", role="developer"),
        lambda: run.apply_async(("echo hello",), {"role": "developer"}, priority=3),
        lambda: run.s("echo hello", role="developer").delay(),
        lambda: run.delay(prompt="echo hello"),
        lambda: (run.si("echo hello") | run.si("echo hello")).delay(),
    ],
)
def test_a_prompt_alone_is_a_task(send: Callable[[], AsyncResult], torch: Torch) -> None:
    result = send()
    assert result.get(timeout=SECONDS)["answer"] == "hello\n"
    assert torch.task(result.id).record().state is TaskState.SUCCEEDED


def test_a_task_sent_by_name_with_plain_fields_runs(celery_setup: CeleryTestSetup, torch: Torch) -> None:
    result = celery_setup.app.send_task("torch.run", [{"prompt": "echo by name", "role": "developer"}])
    assert result.get(timeout=SECONDS)["answer"] == "by name\n"
    assert torch.task(result.id).result(timeout=SECONDS).answer == "by name\n"


def test_waiting_for_a_failed_task_raises_what_happened() -> None:
    with pytest.raises(TaskFailed, match=r"failed-1 failed on developer-1: exit code 3"):
        run.delay(task("exit 3", id="failed-1")).get(timeout=SECONDS)


def test_each_task_of_a_chain_knows_the_answer_of_the_one_before() -> None:
    first, second = task("echo forty-two"), task('cat "$TORCH_CONTEXT"', context={"own": 1})
    result = chain(run.s(first), run.s(second)).delay().get(timeout=SECONDS)
    context = json.loads(result["answer"])
    assert context["own"] == 1
    assert [(item["task_id"], item["answer"]) for item in context["earlier"]] == [(first.id, "forty-two\n")]


def test_the_tasks_of_a_group_all_run() -> None:
    results = group(run.s(task(f"echo {number}")) for number in range(4)).delay().get(timeout=SECONDS)
    assert [result["answer"] for result in results] == ["0\n", "1\n", "2\n", "3\n"]


def test_the_last_task_of_a_chord_knows_all_answers() -> None:
    header = [run.s(task(f"echo {number}")) for number in range(5)]
    result = chord(header)(run.s(task('cat "$TORCH_CONTEXT"'))).get(timeout=SECONDS)
    assert [item["answer"] for item in json.loads(result["answer"])["earlier"]] == [f"{n}\n" for n in range(5)]


def test_a_task_that_fails_stops_its_chain(celery_setup: CeleryTestSetup, torch: Torch) -> None:
    first, second, third = task("echo one"), task("exit 7"), task("echo never")
    with pytest.raises(TaskFailed, match="exit code 7"):
        chain(run.s(first), run.s(second), run.s(third)).delay().get(timeout=SECONDS)
    assert run.delay(task("echo after")).get(timeout=SECONDS)["answer"] == "after\n"
    assert torch.task(first.id).status is TaskState.SUCCEEDED
    assert torch.task(second.id).status is TaskState.FAILED
    assert third.id not in {record.spec.id for record in torch.tasks()}


def test_tasks_go_on_after_the_worker_is_restarted(celery_setup: CeleryTestSetup) -> None:
    before = run.delay(task("echo $$; kept=1")).get(timeout=SECONDS)["answer"]
    celery_setup.worker.kill()
    waiting = run.delay(task("echo $$"))
    celery_setup.worker.restart()
    assert waiting.get(timeout=SECONDS)["answer"] == before

"""Tasks that are begun by a new program, which knows nothing of what came before, in the task's own folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult
from fake_kind import FakeKind, words
from fakes.cli.scenario import Scenario, Start, Turn
from fakes.cli.steps import Say, Work
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.app import app
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import FailureKind

QUICK = Scenario(default=Turn((Say("Done."),)))
SLOW_START = Scenario(default=QUICK.default, start=Start(ready_after=4))


class Programs:
    """What each program of the fake was started with, and told."""

    def __init__(self, fake: FakeKind) -> None:
        self.fake = fake

    @property
    def folders(self) -> list[Path]:
        """Where they were started."""
        return [Path(record["cwd"]) for record in self.fake.cli.records("started")]

    @property
    def told(self) -> list[list[str]]:
        """The words of the tasks that each of them got."""
        told: list[list[str]] = []
        for record in self.fake.cli.records("started", "submitted"):
            if record["kind"] == "started":
                told.append([])
            else:
                told[-1].append(words(record["text"]).split("\n")[-1])
        return told


@pytest.fixture
def fake(node: Node) -> FakeKind:
    return FakeKind(node, scenario=QUICK)


@pytest.fixture
def programs(fake: FakeKind) -> Programs:
    return Programs(fake)


@pytest.fixture
def worker(fake: FakeKind) -> AgentWorker:
    return fake.worker()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return (tmp_path / "elsewhere").resolve()


def done(torch: Torch, prompt: str, **options: Any) -> None:
    result = torch.enqueue(prompt, **options).result(timeout=60)
    assert result.succeeded, result


def test_each_task_of_a_fresh_agent_begins_with_a_new_program(fake: FakeKind, programs: Programs, torch: Torch) -> None:
    fake.worker(words=["--fresh"])
    for prompt in ("one", "two"):
        done(torch, prompt)
    done(torch, "three", fresh=False)
    assert programs.told[1:] == [["one"], ["two", "three"]]
    assert [prompt.startswith("You are a developer") for prompt in fake.prompts()] == [True, True, False]


def test_a_task_asks_for_it_and_works_where_its_program_was_started(
    worker: AgentWorker, programs: Programs, torch: Torch, folder: Path
) -> None:
    done(torch, "one")
    done(torch, "two", fresh=True, workdir=folder)
    done(torch, "three")
    done(torch, "four")
    home = Path(worker.info.workdir)
    assert programs.told == [["one"], ["two"], ["three", "four"]]
    assert programs.folders == [home, folder, home]


def test_its_history_says_so(worker: AgentWorker, torch: Torch, folder: Path) -> None:
    task = torch.enqueue("one", fresh=True, workdir=folder)
    assert task.result(timeout=60).succeeded
    assert f"begun by a new program in {folder}" in [entry.note for entry in task.history()]


def test_a_shell_forgets_what_was_set_in_it(node: Node, torch: Torch) -> None:
    node.agent_worker("sh-1")
    say = "echo ${KEPT:-nothing}"
    assert torch.enqueue("KEPT=it; " + say).result(timeout=30).answer == "it\n"
    assert torch.enqueue(say).result(timeout=30).answer == "it\n"
    assert torch.enqueue(say, fresh=True).result(timeout=30).answer == "nothing\n"


def test_what_was_said_before_is_answered_first(
    worker: AgentWorker, programs: Programs, torch: Torch, fake: FakeKind
) -> None:
    answering = Turn((Work(seconds=2), Say("Both.")), match="which")
    fake.cli.play(Scenario(turns=(answering,), default=QUICK.default))
    with ThreadPoolExecutor() as beside:
        reply = beside.submit(torch.ask, "developer-1", "which of them?", 60)
        until(fake.prompts, "the program has the message")
        done(torch, "go", fresh=True)
        assert reply.result() == "Both."
    first, second = programs.told
    assert first[0].startswith("which of them?")
    assert second == ["go"]


def test_a_worker_killed_while_the_new_program_starts_has_the_task_done_once(
    worker: AgentWorker, programs: Programs, torch: Torch, fake: FakeKind, folder: Path
) -> None:
    done(torch, "one")
    fake.cli.play(SLOW_START)
    task = torch.enqueue("two", fresh=True, workdir=folder)
    until(lambda: len(programs.folders) == 2, "the new program starts", 60)
    worker.kill()
    worker.restart()
    assert task.result(timeout=60).succeeded
    assert [told for told in programs.told if told] == [["one"], ["two"]]
    assert programs.folders[-1] == folder
    assert task.record().attempts == 1


@pytest.mark.parametrize("how", ["cancel", "revoke"])
def test_it_can_be_cancelled_while_the_new_program_wants_a_login(
    worker: AgentWorker, programs: Programs, torch: Torch, fake: FakeKind, how: str
) -> None:
    fake.cli.play(Scenario(start=Start(dialogs=("sign-in",))))
    task = torch.enqueue("two", fresh=True)
    until(lambda: task.status is TaskState.WAITING, "the task waits", 60)
    assert any("wants a login" in (entry.note or "") for entry in task.history())
    if how == "cancel":
        task.cancel()
    else:  # as Flower's button does
        AsyncResult(task.id, app=app).revoke(terminate=True)
    assert task.result(timeout=30).status is TaskState.CANCELLED
    until(lambda: worker.agent_state is AgentState.LOGIN, "the agent says so")
    worker.tmux("send-keys", "1")
    done(torch, "three")
    assert [told for told in programs.told if told] == [["three"]]


def test_a_program_that_cannot_be_started_anew_is_the_tasks_failure(
    worker: AgentWorker, torch: Torch, fake: FakeKind
) -> None:
    fake.cli.program.rename(fake.cli.program.with_suffix(".gone"))
    result = torch.enqueue("one", fresh=True, max_retries=0).result(timeout=60)
    assert result.error is not None
    assert result.error.kind is FailureKind.AGENT_UNAVAILABLE
    fake.cli.program.with_suffix(".gone").rename(fake.cli.program)
    done(torch, "two", fresh=True)


def test_a_failed_check_goes_back_to_the_same_program(
    worker: AgentWorker, programs: Programs, torch: Torch, folder: Path
) -> None:
    done(torch, "one", fresh=True, workdir=folder, check="[ -e second ] || { touch second; false; }", check_rounds=1)
    assert len(programs.told) == 2
    assert len(programs.told[1]) == 2
    assert programs.folders[-1] == folder

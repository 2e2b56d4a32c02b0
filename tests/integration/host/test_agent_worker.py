"""The life of an agent worker: it may stop, die or be refused at any moment, and the work in its pane goes on."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from nodes import AgentWorker, Node
from person import Person
from waiting import until

from torch_tasks import Task, TaskState, Torch
from torch_tasks.app import app
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import FailureKind

LET_GO_SECONDS = 8.0
"""More than a worker needs to let go of a running task."""


def released(gate: Path) -> str:
    """A script that waits for a file to appear."""
    return f"until [ -e {gate} ]; do sleep 0.05; done\n"


def held(torch: Torch, folder: Path, **options: object) -> Task:
    """A task that has begun and ends when :func:`let_go` says so; each run of it adds a line to a file."""
    task = torch.enqueue(f"echo ran >> {folder}/effect\n{released(folder / 'gate')}echo finished", **options)
    until((folder / "effect").exists, "the task has begun")
    return task


def let_go(folder: Path) -> None:
    (folder / "gate").touch()


def effects(folder: Path) -> int:
    """How often the held task ran."""
    return len((folder / "effect").read_text().splitlines())


def type_half_a_line(worker: AgentWorker) -> None:
    """A person has begun to type into the agent's pane."""
    worker.tmux("send-keys", "-l", "echo half a thou")
    until(lambda: "half a thou" in worker.screen(), "the text is in the pane")


def is_gone(pid: int) -> bool:
    """The process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ── one host for one agent ───────────────────────────────────────────────────────────────────────────────────────


def test_a_second_worker_of_the_same_agent_on_the_node_is_refused_and_the_first_goes_on(
    node: Node, torch: Torch
) -> None:
    first = node.agent_worker("developer-1")
    refused = node.refused("developer-1")
    assert refused.returncode != 0
    assert f"pid {first.process.pid} on {socket.gethostname()}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert torch.enqueue("echo still here").result(timeout=20).answer == "still here\n"


def test_a_second_worker_of_the_same_agent_on_another_node_is_refused(
    new_node: Callable[[str], Node], torch: Torch
) -> None:
    first = new_node("node-a").agent_worker("developer-1")
    refused = new_node("node-b").refused("developer-1")
    assert refused.returncode != 0
    assert f"pid {first.process.pid} on {socket.gethostname()}" in refused.stderr
    assert torch.agent("developer-1").node == "node-a"
    assert torch.enqueue("echo still here").result(timeout=20).answer == "still here\n"


def test_an_agent_may_move_to_another_node_when_its_worker_has_left(
    new_node: Callable[[str], Node], torch: Torch
) -> None:
    new_node("node-a").agent_worker("developer-1").kill("SIGTERM")
    new_node("node-b").agent_worker("developer-1")
    assert torch.enqueue("echo moved").result(timeout=20).node == "node-b"


# ── the pane outlives the worker ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_a_worker_that_comes_back_finds_the_same_shell_and_its_variables(node: Node, torch: Torch, signal: str) -> None:
    worker = node.agent_worker("developer-1")
    shell = torch.enqueue("kept=treasure; echo $$").result(timeout=20).answer
    pane, incarnation = worker.pane(), worker.info.incarnation
    worker.kill(signal)
    worker.restart()
    assert worker.pane() == pane
    assert worker.info.pane == pane[0]
    assert worker.info.incarnation > incarnation
    assert torch.enqueue("echo $$; echo $kept").result(timeout=20).answer == f"{shell}treasure\n"


def test_a_worker_told_to_stop_lets_go_of_the_task_and_the_next_one_delivers_it(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    worker = node.agent_worker("developer-1")
    task = held(torch, tmp_path)
    worker.process.terminate()
    worker.process.wait(LET_GO_SECONDS)
    assert not task.status.ended
    worker.restart()
    assert task.status is TaskState.RUNNING
    let_go(tmp_path)
    result = task.result(timeout=20)
    assert (result.status, result.answer, result.attempts) == (TaskState.SUCCEEDED, "finished\n", 1)
    assert effects(tmp_path) == 1


@pytest.mark.parametrize("finish", ["while nobody watches", "when a worker is back"])
def test_a_task_whose_worker_was_killed_is_delivered_once_by_the_next(
    node: Node, torch: Torch, tmp_path: Path, finish: str
) -> None:
    worker = node.agent_worker("developer-1")
    task = held(torch, tmp_path)
    worker.kill()
    if finish == "while nobody watches":
        let_go(tmp_path)
        until(lambda: "finished" in worker.screen().splitlines(), "the task has ended in its pane")
    worker.restart()
    let_go(tmp_path)
    result = task.result(timeout=20)
    assert (result.status, result.answer, result.attempts) == (TaskState.SUCCEEDED, "finished\n", 1)
    assert effects(tmp_path) == 1
    assert torch.enqueue("echo next").result(timeout=20).answer == "next\n"
    assert effects(tmp_path) == 1


def test_tasks_enqueued_while_no_worker_lives_are_done_by_the_next(node: Node, torch: Torch, tmp_path: Path) -> None:
    worker = node.agent_worker("developer-1")
    worker.kill()
    tasks = [torch.enqueue(f"echo {number} >> {tmp_path}/done", role="developer") for number in range(5)]
    worker.restart()
    assert all(task.result(timeout=20).succeeded for task in tasks)
    assert (tmp_path / "done").read_text() == "0\n1\n2\n3\n4\n"


# ── the pane dies ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_whose_pane_dies_is_dead_as_crashed_if_it_may_not_be_tried_again(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    worker = node.agent_worker("developer-1")
    task = held(torch, tmp_path, max_retries=0)
    worker.tmux("kill-pane")
    result = task.result(timeout=20)
    assert result.status is TaskState.DEAD
    assert result.error.kind is FailureKind.AGENT_CRASHED
    assert effects(tmp_path) == 1
    assert torch.enqueue("echo again").result(timeout=20).answer == "again\n"


@pytest.mark.parametrize("death", ["the pane", "the tmux server", "the program", "the shell"])
def test_a_task_whose_terminal_dies_is_tried_again_visibly(
    node: Node, torch: Torch, tmp_path: Path, death: str
) -> None:
    worker = node.agent_worker("developer-1")
    task = held(torch, tmp_path)
    _, keeper = worker.pane()
    if death == "the pane":
        worker.tmux("kill-pane")
    elif death == "the tmux server":
        worker.end_terminal()
    elif death == "the program":
        psutil.Process(keeper).kill()
    else:
        psutil.Process(keeper).children()[0].kill()
    until(lambda: task.record().attempts == 2, "the task is tried again")
    assert "crashed" in task.record().note
    let_go(tmp_path)
    result = task.result(timeout=20)
    assert (result.status, result.answer, result.attempts) == (TaskState.SUCCEEDED, "finished\n", 2)
    assert effects(tmp_path) == 2


def test_a_task_that_kills_its_agent_each_time_ends_with_its_last_allowed_try(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    node.agent_worker("developer-1")
    task = torch.enqueue(f"echo ran >> {tmp_path}/effect; kill -9 $PPID $$", max_retries=1)
    result = task.result(timeout=30)
    assert result.error.kind is FailureKind.AGENT_CRASHED
    assert result.attempts == 2
    assert effects(tmp_path) == 2


def test_a_try_that_has_crashed_does_not_go_on(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.agent_worker("developer-1")
    script = f"trap '' HUP; echo $$ > {tmp_path}/shell; kill -9 $PPID; {released(tmp_path / 'gate')}"
    result = torch.enqueue(f"{script}touch {tmp_path}/went-on", max_retries=0).result(timeout=20)
    assert result.error.kind is FailureKind.AGENT_CRASHED
    shell = int((tmp_path / "shell").read_text())
    try:
        until(lambda: is_gone(shell), "the shell of the crashed try has ended")
    finally:
        let_go(tmp_path)
    assert not (tmp_path / "went-on").exists()


@pytest.mark.parametrize("death", ["kill-pane", "kill-server"])
def test_an_idle_agent_whose_terminal_dies_is_there_again_by_itself(node: Node, torch: Torch, death: str) -> None:
    worker = node.agent_worker("developer-1")
    _, keeper = worker.pane()
    worker.tmux(death)
    until(lambda: is_gone(keeper), "the pane is gone")
    until(lambda: worker.has_pane() and worker.pane()[1] != keeper, "the agent has a new pane")
    until(lambda: worker.agent_state is AgentState.READY, "the agent is ready")
    assert torch.enqueue("echo here").result(timeout=20).answer == "here\n"


def test_a_pane_that_died_while_no_worker_lived_is_replaced_and_its_task_tried_again(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    worker = node.agent_worker("developer-1")
    task = held(torch, tmp_path)
    worker.kill()
    worker.end_terminal()
    worker.restart()
    let_go(tmp_path)
    result = task.result(timeout=20)
    assert (result.status, result.attempts) == (TaskState.SUCCEEDED, 2)
    assert effects(tmp_path) == 2


# ── what cannot begin says why ───────────────────────────────────────────────────────────────────────────────────


def test_without_tmux_a_worker_is_refused_with_the_remedy(node: Node, torch: Torch) -> None:
    refused = node.refused("developer-1", PATH="/nowhere")
    assert refused.returncode != 0
    assert "tmux" in refused.stderr
    assert "install" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert torch.agents() == []


def test_a_state_folder_that_cannot_be_written_is_refused_by_name(node: Node, torch: Torch) -> None:
    node.state.write_text("a file in its place")
    refused = node.refused("developer-1")
    assert refused.returncode != 0
    assert str(node.state) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert torch.agents() == []


def test_a_broker_that_does_not_answer_is_named_without_its_password(node: Node) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        refused = node.refused(
            "developer-1", TORCH_BROKER_URL=f"redis://:hunter2@{address}/0", TORCH_BROKER_CONNECT_SECONDS="0.5"
        )
    assert refused.returncode == 4
    assert address in refused.stderr
    assert "hunter2" not in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr


def test_a_folder_that_is_not_there_is_refused_and_nothing_is_left_behind(node: Node, torch: Torch) -> None:
    shutil.rmtree(node.work)
    refused = node.refused("developer-1")
    assert refused.returncode != 0
    assert str(node.work) in refused.stderr
    assert torch.agents(online=True) == []


# ── who is there ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_killed_worker_counts_as_offline_after_its_silence_and_as_online_when_it_is_back(
    node: Node, torch: Torch
) -> None:
    worker = node.agent_worker("developer-1", skills=["python"])
    worker.kill()
    assert worker.info.online
    until(lambda: not worker.info.online, "the agent is offline")
    assert [info.agent_id for info in torch.agents(online=False)] == ["developer-1"]
    worker.restart()
    assert torch.agent("developer-1").online


def test_a_worker_that_leaves_is_offline_at_once(node: Node, torch: Torch) -> None:
    worker = node.agent_worker("developer-1")
    worker.kill("SIGTERM")
    assert not torch.agent("developer-1").online


def test_the_registry_tells_who_an_agent_is_and_what_it_does(node: Node, torch: Torch, tmp_path: Path) -> None:
    worker = node.agent_worker("developer-1", role="developer", skills=["python", "auth"])
    info = torch.agent("developer-1")
    assert (info.role, info.skills, info.kind, info.node) == ("developer", ("auth", "python"), "shell", "node-a")
    assert (info.pid, info.host) == (worker.process.pid, socket.gethostname())
    assert (info.state, info.current_task) == (AgentState.READY, None)
    task = held(torch, tmp_path)
    until(lambda: worker.info.current_task == task.id and worker.agent_state is AgentState.WORKING, "it works")
    let_go(tmp_path)
    task.result(timeout=20)
    until(lambda: worker.info.current_task is None and worker.agent_state is AgentState.READY, "it is ready again")


# ── people at the pane ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_waits_while_a_person_types_in_the_pane(node: Node, torch: Torch, tmp_path: Path) -> None:
    worker = node.agent_worker("developer-1")
    type_half_a_line(worker)
    task = torch.enqueue(f"touch {tmp_path}/ran")
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    assert "typing" in task.record().note
    assert not (tmp_path / "ran").exists()
    assert "echo half a thou" in worker.screen(), "what the person typed is as it was"
    worker.tmux("send-keys", "C-u")
    assert task.result(timeout=20).succeeded
    assert (tmp_path / "ran").exists()


def test_a_key_that_the_shell_has_not_drawn_yet_is_not_run_with_the_task(node: Node, torch: Torch) -> None:
    worker = node.agent_worker("developer-1")
    [shell] = psutil.Process(int(worker.tmux("display-message", "-p", "#{pane_pid}"))).children()
    with Person(socket=worker.folder / "tmux") as person:
        shell.suspend()
        person.press("x")
        pressed = time.monotonic()
        task = torch.enqueue("echo begun")
        until(lambda: task.record().assigned_at, "the agent has the task")
        until(lambda: time.monotonic() - pressed > 1, "it would have begun")
        shell.resume()
        until(lambda: task.status is TaskState.WAITING, "the task waits")
        assert "typing" in task.record().note
        person.press("\x7f")
        assert task.result(timeout=20).answer == "begun\n"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["cancelled", "deadline"])
def test_a_task_that_waits_for_a_person_can_end(node: Node, torch: Torch, tmp_path: Path, end: str) -> None:
    worker = node.agent_worker("developer-1")
    type_half_a_line(worker)
    deadline = datetime.now(UTC) + timedelta(seconds=5) if end == "deadline" else None
    task = torch.enqueue(f"touch {tmp_path}/ran", deadline=deadline)
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    if end == "cancelled":
        task.cancel()
    assert task.result(timeout=30).status in {TaskState.CANCELLED, TaskState.FAILED}
    worker.tmux("send-keys", "C-u")
    assert torch.enqueue("echo next").result(timeout=20).answer == "next\n"
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_worker_told_to_stop_leaves_what_a_person_types_alone(node: Node, torch: Torch, tmp_path: Path) -> None:
    worker = node.agent_worker("developer-1")
    type_half_a_line(worker)
    task = torch.enqueue(f"echo ran >> {tmp_path}/effect")
    until(lambda: task.status is TaskState.WAITING, "the task waits")
    worker.process.terminate()
    worker.process.wait(LET_GO_SECONDS)
    worker.restart()
    assert "echo half a thou" in worker.screen()
    worker.tmux("send-keys", "C-u")
    assert task.result(timeout=20).succeeded
    assert effects(tmp_path) == 1


def test_a_person_in_copy_mode_does_not_hold_a_task_up(node: Node, torch: Torch) -> None:
    worker = node.agent_worker("developer-1")
    worker.tmux("copy-mode")
    assert torch.enqueue("echo through").result(timeout=20).answer == "through\n"


def test_variables_of_celery_and_flower_do_not_reach_the_agent(node: Node, torch: Torch) -> None:
    node.agent_worker("developer-1", CELERY_SECRET="1", FLOWER_SECRET="1")
    names = torch.enqueue("compgen -e").result(timeout=20).answer.split()
    assert "TORCH_AGENT_ID" in names
    assert not [name for name in names if name.startswith(("CELERY_", "FLOWER_"))]


def test_more_or_fewer_threads_are_refused_in_words_as_by_flowers_buttons(node: Node) -> None:
    node.node_worker("qa-1:qa")
    until(lambda: (worker := node.kept_worker("qa-1")) and worker.is_running(), "its worker runs")
    said = {}
    for name in ("qa-1", "node"):
        for order in (app.control.pool_grow, app.control.pool_shrink):
            worker = f"{name}@{node.name}"
            [answer] = until(
                lambda who=worker, ask=order: ask(1, reply=True, timeout=2, destination=[who]), f"{worker} answers", 60
            )
            said[name, order.__name__] = answer[worker]["error"]
    assert said == {
        ("qa-1", "pool_grow"): (
            "qa-1 is one agent and has as many threads as it needs; 'torch-tasks spawn qa' starts another agent"
        ),
        ("qa-1", "pool_shrink"): (
            "qa-1 is one agent and has as many threads as it needs; 'torch-tasks retire qa-1' ends an agent"
        ),
        ("node", "pool_grow"): (
            "this is a node worker, which runs no agent; it has as many threads as it needs; "
            "'torch-tasks spawn ROLE' starts another agent"
        ),
        ("node", "pool_shrink"): (
            "this is a node worker, which runs no agent; it has as many threads as it needs; "
            "'torch-tasks retire AGENT' ends an agent"
        ),
    }

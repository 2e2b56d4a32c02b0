"""Celery's remote control does what Torch needs of it, for whom the policy lets; the rest is refused, and counted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.app import ANSWER, app
from torch_tasks.caller import Caller, acting_as
from torch_tasks.fleet import fleet
from torch_tasks.tasks.remote_control import REASONS

pytestmark = pytest.mark.usefixtures("unsigned")

SOON = 20.0
CELERY = str(Path(sys.executable).with_name("celery"))


@pytest.fixture
def worker(torch: Torch, node: Node) -> AgentWorker:
    del torch
    return node.agent_worker("dev-1")


@pytest.fixture
def name(worker: AgentWorker, node: Node) -> str:
    """The worker's name, once it listens."""
    name = f"dev-1@{node.name}"
    until(lambda: app.control.ping([name], timeout=1), "it answers", 60)
    return name


@pytest.fixture
def stranger() -> Iterator[Celery]:
    """A plain Celery application on the same broker, as a script or a monitor of somebody's."""
    with Celery("stranger", broker=app.conf.broker_url) as plain:
        yield plain


def said(control: Any, command: str, name: str, **arguments: Any) -> Any:
    [answer] = control.broadcast(command, arguments, destination=[name], reply=True, timeout=SOON, limit=1)
    return answer[name]


def test_what_is_not_needed_is_refused_to_everybody_and_counted(name: str, worker: AgentWorker) -> None:
    pids = {info.pid for info in [worker.process]}
    for command in REASONS:
        assert "error" in said(app.control, command, name), command
    assert said(app.control, "no_such_command", name)["error"] == "there is no command 'no_such_command'"
    counts = fleet().denials.counts()
    assert counts.pop("person:operator control.unknown") == 1
    assert counts == {f"person:operator control.{command}": 1 for command in REASONS}
    assert worker.process.poll() is None
    assert {worker.process.pid} == pids


def test_a_stranger_may_look_and_do_nothing_else(
    name: str, stranger: Celery, torch: Torch, tmp_path: Path, worker: AgentWorker
) -> None:
    assert said(stranger.control, "ping", name) == {"ok": "pong"}
    assert stranger.control.inspect([name], timeout=SOON, limit=1).active() == {name: []}
    task = torch.enqueue(f"until [ -e {tmp_path}/gate ]; do sleep 0.1; done; echo done", agent="dev-1")
    until(lambda: task.status is TaskState.RUNNING, "it runs")
    refused = said(stranger.control, "revoke", name, task_id=task.id, terminate=True, signal="SIGTERM")
    assert '[rights.program] change = "own"' in refused["error"]
    assert '[rights.program] default = "none"' in said(stranger.control, "shutdown", name)["error"]
    assert "'torch-tasks spawn developer'" in said(stranger.control, "pool_grow", name, n=1)["error"]
    assert "error" in said(stranger.control, ANSWER, name, task_id=task.id, reply="1", ticket="t")
    (tmp_path / "gate").touch()
    assert task.result(timeout=SOON).answer == "done\n"
    assert worker.process.poll() is None
    assert fleet().denials.counts() == {
        "program:celery control.pool_grow": 1,
        "program:celery control.revoke": 1,
        "program:celery control.shutdown": 1,
        "program:celery control.torch_answer": 1,
    }


def test_the_worker_decides_by_who_asks_and_not_by_who_it_is_itself(name: str, torch: Torch, tmp_path: Path) -> None:
    wait = f"until [ -e {tmp_path}/gate ]; do sleep 0.1; done"
    with acting_as(Caller(agent="qa-1")):
        own = torch.enqueue(wait, agent="dev-1")
    until(lambda: own.status is TaskState.RUNNING, "it runs")
    with acting_as(Caller(agent="qa-2")):
        assert "NotYours" not in str(refused := said(app.control, "revoke", name, task_id=own.id, terminate=True))
        assert f"task {own.id} belongs to dev-1 and was enqueued by qa-1" in refused["error"]
        assert "answer" in said(app.control, ANSWER, name, task_id=own.id, reply="1", ticket="t")["error"]
    assert own.status is TaskState.RUNNING
    with acting_as(Caller(agent="qa-1")):
        assert "ok" in said(app.control, "revoke", name, task_id=own.id, terminate=True)
    until(lambda: own.status is TaskState.CANCELLED, "it has ended")


def test_a_worker_is_shut_down_from_its_own_node_alone(name: str, node: Node, worker: AgentWorker) -> None:
    assert "a worker is ended from its own node, node-a" in said(app.control, "shutdown", name)["error"]
    argv = [CELERY, "-A", "torch_tasks", "control", "-d", name, "shutdown"]
    env = {**os.environ, "TORCH_NODE": node.name}
    subprocess.run(argv, env=env, capture_output=True, check=False, timeout=60)
    until(lambda: worker.process.poll() is not None, "it has ended", 60)

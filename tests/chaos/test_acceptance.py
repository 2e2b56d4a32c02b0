"""The promises one by one, each as a scene that anybody can play by hand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from machine import Machine
from waiting import until

from chaos.client import Order, answer, script
from chaos.fleet import Fleet
from chaos.oracle import Line, judge
from torch_tasks.model.task import TaskRecord, TaskState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LONG = os.environ.get("TORCH_TEST_LONG") == "1"
"""In full: as long as a person would have the patience for."""
TASK_SECONDS, LEASE_SECONDS = (90.0, 15.0) if LONG else (20.0, 3.0)
QUEUED = 50
DELIVERED_SECONDS = 60.0
TAKEOVER_SECONDS = 4.0
SILENT_SECONDS = 16.0


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two agents under a node worker."""
    with Fleet(agents=("agent-1", "agent-2")) as fleet:
        yield fleet


def hand_in(fleet: Fleet, task: str, seconds: float, **options: str) -> None:
    """Enqueue a task whose effect takes so long."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    fleet.torch("run", "--id", task, *words, "-", stdin=script(task, fleet.effects, seconds))


def starts(fleet: Fleet, task: str) -> list[Line]:
    """Each beginning of the task's effect."""
    return [line for line in Line.read(fleet.effects / task) if line.what == "start"]


def ended(fleet: Fleet, task: str, seconds: float = DELIVERED_SECONDS) -> TaskRecord:
    """The record of the task, which ends within the time."""
    until(lambda: fleet.ended([task]) == 1, f"{task} has ended:\n{fleet.mentions(task)}", seconds)
    record = fleet.records([task])[task]
    assert record is not None
    return record


def test_a_task_that_runs_for_many_leases_runs_once() -> None:
    with Fleet(agents=("agent-1", "agent-2", "agent-3"), TORCH_LEASE_SECONDS=f"{LEASE_SECONDS:g}") as fleet:
        hand_in(fleet, "long", TASK_SECONDS)
        record = ended(fleet, "long", TASK_SECONDS + DELIVERED_SECONDS)
        assert (record.state, record.attempts, record.deliveries) == (TaskState.SUCCEEDED, 1, 0)
        assert len(starts(fleet, "long")) == 1


def test_a_killed_workers_task_goes_on_in_its_pane_and_is_delivered_once(fleet: Fleet) -> None:
    hand_in(fleet, "kept", 6.0, agent="agent-1")
    until(lambda: starts(fleet, "kept"), "the task has begun")
    pane, shell, worker = fleet.pane("agent-1"), fleet.shell("agent-1"), fleet.worker("agent-1")
    assert worker
    worker.kill()
    record = ended(fleet, "kept")
    assert (record.state, record.attempts) == (TaskState.SUCCEEDED, 1)
    assert record.result.answer.strip() == answer("kept")
    assert len(starts(fleet, "kept")) == 1
    assert fleet.pane("agent-1") == pane
    assert fleet.shell("agent-1") == shell
    assert fleet.worker("agent-1") not in (None, worker)


@pytest.mark.parametrize("data", ["empty", "in the past"])
def test_a_broker_that_comes_back_without_what_it_accepted_costs_no_task(fleet: Fleet, data: str) -> None:
    order = Order(QUEUED, 1.0, 1, fleet.agents, first=len(fleet.accepted()) + 1, longest=0.6)
    tasks, client = order.tasks, fleet.hand_in(order)
    until(lambda: fleet.ended(tasks) >= 5, "some tasks have ended")
    fleet.broker.snapshot()
    until(lambda: fleet.ended(tasks) >= 12 and client.poll() is not None, "all are queued, some more have ended", 60)
    fleet.broker.end(signal.SIGKILL)
    fleet.broker.forget() if data == "empty" else fleet.broker.go_back()
    fleet.broker.start()
    until(lambda: fleet.ended(tasks) == QUEUED, "all tasks have ended", 120)
    assert list(fleet.accepted())[-QUEUED:] == tasks
    effects = {task: Line.read(fleet.effects / task) for task in tasks}
    verdict = judge({task: answer(task) for task in tasks}, effects, fleet.records(tasks), [])
    assert verdict.good, verdict


def test_a_frozen_worker_that_wakes_up_does_nothing_twice(fleet: Fleet) -> None:
    hand_in(fleet, "frozen", 3.0, agent="agent-1")
    until(lambda: starts(fleet, "frozen"), "the task has begun")
    worker = fleet.worker("agent-1")
    assert worker
    worker.suspend()
    time.sleep(60 if LONG else 2 * LEASE_SECONDS)  # the time is the scene: its lease runs out meanwhile
    with suppress(psutil.NoSuchProcess):  # taken for hung, and killed
        worker.resume()
    record = ended(fleet, "frozen")
    assert (record.state, record.attempts) == (TaskState.SUCCEEDED, 1)
    assert len(starts(fleet, "frozen")) == 1


def test_a_terminal_that_does_not_answer_for_a_while_costs_nothing(fleet: Fleet) -> None:
    hand_in(fleet, "silent", SILENT_SECONDS + 2, agent="agent-2")
    until(lambda: starts(fleet, "silent"), "the task has begun")
    terminal = fleet.terminal("agent-2")
    assert terminal
    terminal.suspend()
    time.sleep(SILENT_SECONDS)  # the time is the scene: a worker that asks tmux meanwhile gives up
    terminal.resume()
    record = ended(fleet, "silent")
    assert (record.state, record.attempts) == (TaskState.SUCCEEDED, 1)
    assert len(starts(fleet, "silent")) == 1


@pytest.fixture
def nodes() -> Iterator[tuple[Fleet, Machine]]:
    """A fleet of one agent, and a second machine that reads the same broker."""
    with Fleet(agents=("agent-1",), TORCH_NODE="node-a", TORCH_TAKEOVER_SECONDS=f"{TAKEOVER_SECONDS:g}") as fleet:
        same = {name: value for name, value in fleet.env.items() if name.startswith("TORCH_") and "_DIR" not in name}
        other = Machine(**{**same, "TORCH_NODE": "node-b", "TORCH_KEYS_DIR": str(fleet.state / "keys")})
        try:
            yield fleet, other
        finally:
            other.close()


def test_what_a_successor_wrote_stands_when_the_frozen_owner_wakes_up(nodes: tuple[Fleet, Machine]) -> None:
    fleet, other = nodes
    hand_in(fleet, "taken", 3.0, role="developer")
    until(lambda: starts(fleet, "taken"), "the task has begun")
    frozen = [process for process in (fleet.process("node"), fleet.worker("agent-1")) if process]
    for process in frozen:
        process.suspend()
    other.start("worker", "--id", "agent-9", "--role", "developer", "--kind", "shell")
    record = ended(fleet, "taken", 90)
    assert (record.state, record.agent, record.attempts) == (TaskState.SUCCEEDED, "agent-9", 2)
    for process in frozen:
        process.resume()
    hand_in(fleet, "after", 0.1, agent="agent-1")
    assert ended(fleet, "after").state is TaskState.SUCCEEDED
    assert fleet.records(["taken"])["taken"] == record
    assert [line.agent for line in starts(fleet, "taken")] == ["agent-1", "agent-9"]

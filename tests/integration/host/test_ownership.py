"""Whose a task is: the agent that began it, until that agent and whoever would bring it back are dead."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import AgentWorker, Broker, Node
from waiting import until

from torch_tasks import Task, TaskState, Torch, keys
from torch_tasks.errors import StaleWriter
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.task import FailureKind, TaskResult
from torch_tasks.store.task_outcomes import Take

TAKEOVER_SECONDS = 40.0
"""More than a takeover needs on a busy machine."""
LEASE_SECONDS, HEARTBEAT_SECONDS = 300, 200
SLOW = {
    "TORCH_LEASE_SECONDS": f"{LEASE_SECONDS}",
    "TORCH_HEARTBEAT_SECONDS": f"{HEARTBEAT_SECONDS}",
    "TORCH_OFFLINE_SECONDS": "600",
    "TORCH_TAKEOVER_SECONDS": "600",
}
"""Whoever waits for one of these waits longer than any worker takes to start."""


def held(torch: Torch, folder: Path, *, gate: str = "gate", **options: object) -> Task:
    """A task that has begun and ends when its gate opens; each try adds its agent to a file."""
    script = (
        f"echo $TORCH_AGENT_ID >> {folder}/effect\nuntil [ -e {folder}/{gate} ]; do sleep 0.05; done\necho finished"
    )
    task = torch.enqueue(script, role="developer", **options)
    until((folder / "effect").exists, "the task has begun")
    return task


def tries(folder: Path) -> list[str]:
    """The agents that began the held task."""
    return (folder / "effect").read_text().split()


@pytest.fixture
def two(new_node: Callable[[str], Node]) -> tuple[AgentWorker, AgentWorker]:
    """An agent on one node and another of the same role on another node, in a fleet without a node worker or a beat."""
    first = new_node("node-a").agent_worker("developer-1")
    return first, new_node("node-b").agent_worker("developer-2")


@pytest.fixture
def owner_and_other(
    two: tuple[AgentWorker, AgentWorker], torch: Torch, tmp_path: Path
) -> Iterator[tuple[Task, AgentWorker, AgentWorker]]:
    """A held task, the agent that has it, and the other one."""
    task = held(torch, tmp_path)
    owner = next(worker for worker in two if worker.agent_id == task.record().agent)
    yield task, owner, next(worker for worker in two if worker is not owner)
    (tmp_path / "gate").touch()


def notes(task: Task) -> list[tuple[str, str | None, str | None]]:
    """The states a task went through, by which agent's hand, and why."""
    return [(str(entry.state), entry.agent, entry.note) for entry in task.history()]


# ── takeover ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_task_of_a_dead_agent_is_taken_over_and_its_worker_lets_go_when_it_comes_back(
    owner_and_other: tuple[Task, AgentWorker, AgentWorker], torch: Torch, tmp_path: Path
) -> None:
    task, owner, other = owner_and_other
    owner.kill()
    until(lambda: len(tries(tmp_path)) == 2, "the task runs elsewhere", TAKEOVER_SECONDS)
    owner.restart()
    until(lambda: owner.agent_state is AgentState.READY, "the old pane has let go", 20)
    (tmp_path / "gate").touch()
    result = task.result(timeout=20)
    assert (result.status, result.agent, result.attempts) == (TaskState.SUCCEEDED, other.agent_id, 2)
    assert tries(tmp_path) == [owner.agent_id, other.agent_id]
    former = owner.info
    assert ("assigned", other.agent_id, f"taken over from {former.agent_id} on {former.node}") in notes(task)
    assert torch.enqueue("echo usable", agent=owner.agent_id).result(timeout=20).answer == "usable\n"


@pytest.mark.slow
def test_a_frozen_worker_that_wakes_up_overwrites_nothing_and_interrupts_what_is_not_its_own_any_more(
    owner_and_other: tuple[Task, AgentWorker, AgentWorker], torch: Torch, tmp_path: Path
) -> None:
    task, owner, other = owner_and_other
    owner.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: len(tries(tmp_path)) == 2, "the task runs elsewhere", TAKEOVER_SECONDS)
    finally:
        owner.process.send_signal(signal.SIGCONT)
    until(lambda: "^C" in owner.screen(), "the old pane was interrupted", 20)
    assert task.status is TaskState.RUNNING
    (tmp_path / "gate").touch()
    result = task.result(timeout=20)
    assert (result.status, result.agent, result.attempts) == (TaskState.SUCCEEDED, other.agent_id, 2)
    assert torch.enqueue("echo usable", agent=owner.agent_id).result(timeout=20).answer == "usable\n"
    assert task.record().result == result


@pytest.mark.slow
def test_the_next_agent_gets_what_the_last_one_left(
    two: tuple[AgentWorker, AgentWorker], torch: Torch, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    for words in (
        ["init", "-q", "-b", "topic"],
        ["config", "user.email", "t@example.org"],
        ["config", "user.name", "t"],
    ):
        tree.mkdir(exist_ok=True)
        subprocess.run(["git", *words], cwd=tree, check=True)
    (tree / "code").write_text("old\n")
    subprocess.run(["git", "add", "code"], cwd=tree, check=True)
    subprocess.run(["git", "commit", "-q", "-m", "first"], cwd=tree, check=True)
    script = (
        f"echo try >> {tmp_path}/effect\n[ -e {tmp_path}/died ] && cat $TORCH_CONTEXT && return\n"
        f"echo new > code\necho 'half way there'\nuntil [ -e {tmp_path}/gate ]; do sleep 0.05; done"
    )
    task = torch.enqueue(script, role="developer", workdir=str(tree))
    until(lambda: task.record().handoff is not None and task.record().handoff.diff, "something is noted", 30)
    owner = next(worker for worker in two if worker.agent_id == task.record().agent)
    (tmp_path / "died").touch()
    owner.kill()
    owner.end_terminal()
    answer = task.result(timeout=TAKEOVER_SECONDS).answer
    assert "half way there" in answer
    assert '"branch": "topic"' in answer
    assert "+new" in answer
    assert f'"agent": "{owner.agent_id}"' in answer


# ── who lives keeps ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGQUIT", "SIGINT"])
def test_a_worker_told_to_stop_keeps_its_task_for_its_next_life(
    owner_and_other: tuple[Task, AgentWorker, AgentWorker], torch: Torch, tmp_path: Path, name: str
) -> None:
    task, owner, _ = owner_and_other
    pane = owner.pane()
    owner.kill(name)
    waits_at_least = 7.0  # longer than a dead agent keeps its tasks
    with pytest.raises(AssertionError, match="not within"):
        until(lambda: len(tries(tmp_path)) > 1, "somebody else began", waits_at_least)
    owner.restart()
    assert owner.pane() == pane
    (tmp_path / "gate").touch()
    result = task.result(timeout=20)
    assert (result.status, result.agent, result.attempts) == (TaskState.SUCCEEDED, owner.agent_id, 1)
    assert tries(tmp_path) == [owner.agent_id]
    assert ("running", owner.agent_id, "adopted by the agent's next worker") in notes(task)


@pytest.mark.slow
def test_the_task_of_an_agent_that_a_node_worker_keeps_is_left_to_it_however_silent_it_is(
    owner_and_other: tuple[Task, AgentWorker, AgentWorker], tmp_path: Path
) -> None:
    task, owner, _ = owner_and_other
    owner.kill()

    def begun_elsewhere() -> bool:
        fleet().registry.keep([owner.agent_id])  # as its node worker does at intervals
        return len(tries(tmp_path)) > 1

    with pytest.raises(AssertionError, match="not within"):
        until(begun_elsewhere, "somebody else began", 12)
    owner.restart()
    (tmp_path / "gate").touch()
    result = task.result(timeout=20)
    assert (result.agent, result.attempts) == (owner.agent_id, 1)
    assert tries(tmp_path) == [owner.agent_id]


def test_the_next_worker_waits_neither_for_its_predecessors_lease_nor_for_a_heartbeat(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    worker = node.agent_worker("developer-1", **SLOW)
    task = held(torch, tmp_path, agent="developer-1")
    (leased,) = fleet().client.zrange(keys.LEASES, 0, -1, withscores=True)
    incarnation = torch.agent("developer-1").incarnation
    worker.kill()
    worker.restart()

    def is_watched_again() -> bool:
        info = torch.agent("developer-1")
        return info.incarnation > incarnation and info.current_task == task.id

    until(is_watched_again, "the task is watched again, as the fleet knows", HEARTBEAT_SECONDS / 2)
    (anew,) = fleet().client.zrange(keys.LEASES, 0, -1, withscores=True)
    assert anew[0] != leased[0], "the delivery that the dead worker held"
    assert anew[1] - 1000 * LEASE_SECONDS < leased[1], "its lease had not ended when the next one began"
    (tmp_path / "gate").touch()
    result = task.result(timeout=60)
    assert (result.status, result.answer, result.attempts) == (TaskState.SUCCEEDED, "finished\n", 1)
    assert tries(tmp_path) == ["developer-1"]


def test_an_agent_with_a_task_in_its_pane_goes_on_with_it_before_any_other(
    node: Node, torch: Torch, tmp_path: Path
) -> None:
    worker = node.agent_worker("developer-1")
    task = held(torch, tmp_path)
    worker.kill()
    urgent = [torch.enqueue(f"echo urgent >> {tmp_path}/effect", priority="urgent") for _ in range(3)]
    worker.restart()
    until(lambda: worker.info.current_task == task.id, "the task goes on")
    assert tries(tmp_path) == ["developer-1"]
    (tmp_path / "gate").touch()
    assert task.result(timeout=20).attempts == 1
    assert all(one.result(timeout=30).succeeded for one in urgent)
    assert tries(tmp_path) == ["developer-1", *["urgent"] * 3]


def test_a_task_that_was_never_put_into_the_pane_holds_nobody_up(node: Node, torch: Torch) -> None:
    worker = node.agent_worker("developer-1")
    worker.kill()
    journal = worker.folder / "journal.json"
    ghost = {"task_id": "ghost", "attempt": 1, "begun_at": "2026-01-01T00:00:00Z"}
    journal.write_text(json.dumps(json.loads(journal.read_text()) | {"current": ghost}))
    worker.restart()
    assert torch.enqueue("echo served").result(timeout=20).answer == "served\n"


# ── the fence, on the broker ─────────────────────────────────────────────────────────────────────────────────────


def life(incarnation: int, agent_id: str = "developer-1", node: str = "node-a") -> AgentInfo:
    """An agent as it appears in one of its lives."""
    return AgentInfo(
        agent_id=agent_id, role="developer", kind="shell", node=node, pid=1, host="h", incarnation=incarnation,
        workdir="/", tmux_socket="/s", started_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


@pytest.fixture
def task_id(torch: Torch, broker: Broker) -> str:
    """A task that no agent will take."""
    broker.empty()
    return torch.enqueue("true", role="nobody").id


def test_what_an_earlier_life_writes_is_refused(task_id: str) -> None:
    records = fleet().records
    assert records.take(task_id, life(1))[0] is Take.TAKEN
    records.move(task_id, TaskState.RUNNING, by=life(1))
    assert records.take(task_id, life(2))[0] is Take.MINE
    result = TaskResult(task_id=task_id, status=TaskState.SUCCEEDED)
    with pytest.raises(StaleWriter):
        records.finish(result, by=life(1))
    with pytest.raises(StaleWriter):
        records.take(task_id, life(1))
    records.finish(result, by=life(2))
    assert records.take(task_id, life(3))[0] is Take.ENDED


@pytest.mark.parametrize("state", [TaskState.QUEUED, TaskState.PARKED])
def test_what_is_let_go_of_after_it_was_cancelled_waits_for_nobody(task_id: str, state: TaskState) -> None:
    records = fleet().records
    records.take(task_id, life(1))
    records.move(task_id, TaskState.RUNNING, by=life(1))
    records.request_cancel(task_id)
    assert records.move(task_id, state, by=life(1), note="its agent is gone")["state"] == TaskState.CANCELLED
    record = records.get(task_id)
    assert (record.state, record.result and record.result.error and record.result.error.kind) == (
        TaskState.CANCELLED,
        FailureKind.CANCELLED,
    )


def test_a_silent_owner_keeps_its_task_while_the_broker_itself_is_not_known_to_have_listened(task_id: str) -> None:
    records = fleet().records
    records.take(task_id, life(1))
    assert records.take(task_id, life(1, "developer-2", "node-b"))[:2] == (Take.OWNED, "developer-1")


def test_of_two_accounts_the_later_one_counts(task_id: str, broker: Broker) -> None:
    records = fleet().records
    before = records.account(task_id)
    records.take(task_id, life(1))
    taken = records.account(task_id)
    assert not records.restore(task_id, before)
    assert records.account(task_id) == taken
    broker.empty()
    assert records.restore(task_id, before)
    assert records.restore(task_id, taken)
    assert not records.restore(task_id, taken)
    record = records.get(task_id)
    assert (record.state, record.agent, record.attempts) == (TaskState.ASSIGNED, "developer-1", 1)
    assert [one.spec.id for one in records.latest(10)] == [task_id]
    assert record.queue in broker.client.smembers("nova:torch:demanded_queues")

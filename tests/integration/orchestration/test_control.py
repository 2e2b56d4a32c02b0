"""Pause, resume, stop, start: who takes no work keeps to it, whichever process dies, with the broker or without."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest
from clients import client_of
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Say, Work
from faults import FaultyBroker, broker  # noqa: F401 - a fixture in the place of the session's
from machine import TORCH_TASKS
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.client import Task
from torch_tasks.communication import MessageState, NovaOrchestrator
from torch_tasks.errors import AgentNotFound, InvalidHold, NotHeld
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.model.hold import Stop
from torch_tasks.store.agents import AgentRecords

pytestmark = pytest.mark.slow
SOON = 20.0
"""How long what is said may take on a busy machine; a heartbeat is half a second here."""


@pytest.fixture
def torch(broker: FaultyBroker, tmp_path: Path) -> Iterator[Torch]:  # noqa: F811
    """A client on a machine of its own."""
    with client_of(broker, tmp_path / "state") as torch:
        broker.empty()
        yield torch


@pytest.fixture
def node(broker: FaultyBroker, torch: Torch) -> Iterator[Node]:  # noqa: F811
    """One machine with agents."""
    node = Node("node-a", broker, torch)
    yield node
    node.close()


def cli(*words: str, node: Node | None = None, code: int = 0) -> str:
    """What ``torch-tasks`` says on that machine, or on the client's."""
    env = (
        dict(os.environ) if node is None else {**os.environ, "TORCH_STATE_DIR": str(node.state), "TORCH_NODE": "node-a"}
    )
    done = forked.run([TORCH_TASKS, *words], env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def goes_on(file: Path) -> str:
    """A script that works until the file is there."""
    return f"echo begun >> {file}.begun; until [ -e {file} ]; do sleep 0.1; done; echo done"


def begun(file: Path) -> int:
    """How often such a script was begun."""
    marks = Path(f"{file}.begun")
    return len(marks.read_text().split()) if marks.exists() else 0


def running(torch: Torch, file: Path, agent: str = "dev-1") -> Task:
    """A task that an agent works on."""
    task = torch.enqueue(goes_on(file), agent=agent)
    until(lambda: task.status is TaskState.RUNNING and begun(file), f"{agent} works on it")
    return task


def stays_queued(torch: Torch, worker: AgentWorker) -> Task:
    """A task for this agent that it does not take, though it could have for a while."""
    task = torch.enqueue("true", agent=worker.agent_id)
    heard = worker.info.last_heartbeat if worker.info else None
    # Three of its heartbeats: it lives, and has looked at its queue many times.
    for _ in range(3):
        until(lambda: worker.info and worker.info.last_heartbeat != heard, "it lives")  # noqa: B023
        heard = worker.info.last_heartbeat if worker.info else None
        assert task.status is TaskState.QUEUED
    return task


# ── pause ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_paused_agent_ends_what_it_does_and_takes_nothing_new(torch: Torch, node: Node, tmp_path: Path) -> None:
    worker = node.agent_worker("dev-1")
    work = running(torch, tmp_path / "go")
    said = torch.pause("dev-1", reason="too noisy")
    assert said.confirmed == ("dev-1",)
    (tmp_path / "go").touch()
    assert work.result(timeout=30).answer == "done\n"
    waiting = stays_queued(torch, worker)
    info = torch.agent("dev-1")
    assert (info.hold_reason, info.free) == ("paused by operator: too noisy", False)
    assert AgentRecords().find_available_agents("developer") == []
    record = waiting.record()
    assert (record.waits, record.unroutable) == ("dev-1 is paused by operator: too noisy", False)
    assert "dev-1 is paused by operator: too noisy" in cli("task", waiting.id)
    assert "ready, paused by operator: too noisy" in cli("agents")
    assert "agent dev-1 by operator: too noisy" in cli("doctor", code=0)
    assert torch.resume("dev-1").confirmed == ("dev-1",)
    assert waiting.result(timeout=SOON).succeeded
    assert torch.agent("dev-1").paused is None


def test_another_agent_takes_what_a_paused_one_leaves(torch: Torch, node: Node) -> None:
    node.agent_worker("dev-1")
    torch.pause("dev-1")
    node.agent_worker("dev-2")
    done = [torch.enqueue("true", role="developer").result(timeout=30).agent for _ in range(3)]
    assert done == ["dev-2"] * 3


def test_a_pause_that_interrupts_leaves_the_task_to_another_agent(torch: Torch, node: Node, tmp_path: Path) -> None:
    worker = node.agent_worker("dev-1")
    work = torch.enqueue(goes_on(tmp_path / "go"), role="developer", max_retries=0)
    until(lambda: begun(tmp_path / "go") == 1, "it has begun")
    shell = worker.pane()
    assert "confirmed by dev-1" in cli("pause", "dev-1", "--interrupt", "--reason", "wrong branch")
    until(lambda: work.status is TaskState.QUEUED, "the task has gone back", SOON)
    assert work.record().note == "given back: dev-1 is paused by operator: wrong branch"
    node.agent_worker("dev-2")
    until(lambda: begun(tmp_path / "go") == 2, "the other one does it")
    (tmp_path / "go").touch()
    result = work.result(timeout=30)
    assert (result.status, result.agent, worker.pane()) == (TaskState.SUCCEEDED, "dev-2", shell)
    cli("resume", "dev-1")
    assert torch.enqueue("echo free", agent="dev-1").result(timeout=20).answer == "free\n"


def test_a_role_is_paused_also_for_those_who_start_later(torch: Torch, node: Node) -> None:
    torch.pause(role="qa", reason="no builds today")
    qa = node.agent_worker("qa-1", "qa")
    node.agent_worker("dev-1")
    assert torch.enqueue("true", agent="dev-1").result(timeout=30).succeeded
    waiting = stays_queued(torch, qa)
    with pytest.raises(NotHeld, match="agent qa-1"):
        torch.resume("qa-1")
    torch.resume(role="qa")
    assert waiting.result(timeout=SOON).succeeded


def test_everybody_is_paused_and_one_pause_does_not_lift_another(torch: Torch, node: Node) -> None:
    workers = [node.agent_worker("dev-1"), node.agent_worker("qa-1", "qa")]
    torch.pause("dev-1", reason="its own")
    assert torch.pause(everybody=True).confirmed == ("dev-1", "qa-1")
    tasks = [stays_queued(torch, worker) for worker in workers]
    said = cli("resume", "--all")
    assert "still dev-1: paused by operator: its own" in said
    assert tasks[1].result(timeout=SOON).succeeded
    assert tasks[0].status is TaskState.QUEUED


def test_who_is_not_there_cannot_be_paused(torch: Torch) -> None:
    with pytest.raises(AgentNotFound):
        torch.pause("nobody")
    with pytest.raises(InvalidHold):
        torch.pause("dev-1", everybody=True)
    with pytest.raises(InvalidHold):
        torch.resume()
    with pytest.raises(NotHeld):
        torch.resume(everybody=True)
    assert "Error: " in cli("pause", code=2)


def test_a_worker_that_was_killed_comes_back_paused_and_ends_its_task_first(
    torch: Torch, node: Node, tmp_path: Path
) -> None:
    worker = node.agent_worker("dev-1")
    work = running(torch, tmp_path / "go")
    torch.pause("dev-1")
    worker.kill()
    worker.start()
    worker.ready()
    (tmp_path / "go").touch()
    assert work.result(timeout=30).answer == "done\n"
    assert begun(tmp_path / "go") == 1
    stays_queued(torch, worker)


def restarted(broker: FaultyBroker) -> None:  # noqa: F811
    """With its data."""
    broker.stop()
    broker.start()


def lost(broker: FaultyBroker) -> None:  # noqa: F811
    """Killed, and back without its data."""
    broker.lose_everything()


@pytest.mark.parametrize("happens", [restarted, lost])
def test_a_pause_outlives_the_broker(
    torch: Torch,
    node: Node,
    broker: FaultyBroker,  # noqa: F811
    happens: Callable[[FaultyBroker], None],
) -> None:
    worker = node.agent_worker("dev-1")
    torch.pause("dev-1", reason="for good")
    torch.pause(role="qa")
    torch.resume(role="qa")
    happens(broker)
    until(lambda: (info := worker.info) and info.online and info.paused, "the broker knows of the pause")
    assert [(scope, hold.reason) for scope, hold in fleet().holds.latest().pauses()] == [("agent dev-1", "for good")]
    waiting = stays_queued(torch, worker)
    torch.resume("dev-1")
    assert waiting.result(timeout=30).succeeded


def test_messages_wait_but_for_emergencies(torch: Torch, node: Node) -> None:
    node.agent_worker("dev-1")
    torch.pause("dev-1")
    nova, file = NovaOrchestrator(), node.work / "said"
    plain = nova.send_message("dev-1", f"echo plain >> {file}")
    pressing = nova.send_message("dev-1", f"echo emergency >> {file}", priority="emergency")
    nova.await_delivery(pressing.id, 30)
    until(file.exists, "the emergency has arrived")
    assert file.read_text() == "emergency\n"
    assert nova.message(plain.id).state is MessageState.ACCEPTED
    torch.resume("dev-1")
    until(lambda: file.read_text() == "emergency\nplain\n", "the other one has, too")


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_fleet_stops_and_starts_and_its_tasks_are_neither_lost_nor_failed(
    torch: Torch, node: Node, tmp_path: Path
) -> None:
    worker = node.agent_worker("dev-1")
    work = running(torch, tmp_path / "go")
    said = cli("stop", "--all", "--reason", "fire drill")
    assert "confirmed by dev-1" in said
    until(lambda: work.status is TaskState.QUEUED, "the task has gone back", SOON)
    assert (node.state / "STOP").exists()
    until(lambda: torch.agent("dev-1").stopped, "the agent tells that it is stopped", SOON)
    record = work.record()
    assert (record.note, record.waits) == (
        "given back: stopped by operator: fire drill",
        "dev-1 is stopped by operator: fire drill",
    )
    stays_queued(torch, worker)
    assert "stopped by operator: fire drill; 'torch-tasks start --all' lifts it" in cli("doctor", code=1)
    assert "fire drill" in cli("doctor", node=node, code=1)
    (tmp_path / "go").touch()
    assert "confirmed by dev-1" in cli("start", "--all")
    result = work.result(timeout=30)
    assert (result.answer, begun(tmp_path / "go")) == ("done\n", 2)
    assert not (node.state / "STOP").exists()
    assert re.search(r"stopped: +no$", cli("doctor", node=node), re.MULTILINE)


@pytest.mark.parametrize("order", ["stop --all", "stop --here", "pause --all --interrupt"])
def test_a_task_that_stops_its_own_agent_is_not_put_back(
    torch: Torch, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """It would do so again, each time that the fleet is started. By the policy of this test its agent may."""
    (tmp_path / "policy.toml").write_text('[rights.agent]\nhold = "any"\n')
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    node.agent_worker("dev-1", TORCH_CONFIG_DIR=str(tmp_path))
    again = order.split(" --interrupt")[0].replace("stop", "start").replace("pause", "resume")
    task = torch.enqueue(f"echo once >> {tmp_path}/done; {TORCH_TASKS} {order}; sleep 60", agent="dev-1", max_retries=3)
    until(lambda: task.status.ended, "it has ended", 2 * SOON)
    record = task.record()
    assert (record.state, record.attempts) == (TaskState.FAILED, 1)
    assert record.result
    assert record.result.error
    assert record.result.error.kind == "held_agents"
    assert "it is not put back, because it ordered this itself: " in record.result.error.message
    assert "by dev-1" in record.result.error.message
    other = torch.enqueue("echo next", agent="dev-1")
    cli(*again.split(), node=node)
    assert other.result(timeout=30).answer == "next\n"
    assert (tmp_path / "done").read_text() == "once\n"


def test_a_stop_needs_no_broker(
    torch: Torch,
    node: Node,
    broker: FaultyBroker,  # noqa: F811
    tmp_path: Path,
) -> None:
    worker = node.agent_worker("dev-1")
    work = running(torch, tmp_path / "go")
    shell = worker.pane()
    broker.stop()
    said = cli("stop", "--all", "--reason", "now", node=node, code=4)
    assert "only this machine is stopped; the others stop once the broker is back" in said
    until(lambda: "stopped by operator: now" in worker.logs(), "the worker has seen the file", SOON)
    halted = worker.folder / "program" / "runs" / f"{work.id}.1" / "exit"
    until(halted.exists, "the script has ended", 3 * SOON)
    assert worker.pane() == shell
    (tmp_path / "go").touch()
    broker.start()
    until(lambda: work.status is TaskState.QUEUED, "the task has gone back")
    other = Node("node-b", broker, torch)
    try:
        elsewhere = other.agent_worker("dev-2")
        until((other.state / "STOP").exists, "the other machine is told", SOON)
        waiting = stays_queued(torch, elsewhere)
        torch.start()
        assert waiting.result(timeout=30).succeeded
    finally:
        other.close()
    assert work.result(timeout=30).answer == "done\n"


def test_a_worker_that_dies_in_the_middle_of_a_stop_fails_nothing(
    torch: Torch,
    node: Node,
    broker: FaultyBroker,  # noqa: F811
    tmp_path: Path,
) -> None:
    worker = node.agent_worker("dev-1")
    work = running(torch, tmp_path / "go")
    broker.stop()
    cli("stop", "--here", node=node)
    until((worker.folder / "program" / "runs" / f"{work.id}.1" / "exit").exists, "the script has ended", 3 * SOON)
    worker.kill()
    broker.start()
    worker.start()
    worker.ready()
    until(lambda: work.status is TaskState.QUEUED, "the task has gone back")
    cli("start", "--here", node=node)
    (tmp_path / "go").touch()
    assert work.result(timeout=30).succeeded
    assert [entry.state for entry in work.history()].count(TaskState.FAILED) == 0


def test_one_machine_stops_and_another_takes_its_work(
    torch: Torch,
    node: Node,
    broker: FaultyBroker,  # noqa: F811
    tmp_path: Path,
) -> None:
    worker = node.agent_worker("dev-1")
    task = torch.enqueue(goes_on(tmp_path / "go"), role="developer")
    until(lambda: begun(tmp_path / "go"), "it works")
    other = Node("node-b", broker, torch)
    try:
        other.agent_worker("dev-2")
        (node.state / "STOP").touch()  # by hand
        until(lambda: begun(tmp_path / "go") == 2, "the other one has it", 2 * SOON)
        assert task.record().agent == "dev-2"
        (tmp_path / "go").touch()
        assert task.result(timeout=30).succeeded
        assert worker.logs().count("stopped by the file") == 1
        assert "start --here" in cli("doctor", node=node, code=1)
        assert "not stopped" in cli("start", "--all", code=1)
        (node.state / "STOP").unlink()
        until(lambda: torch.agent("dev-1").stopped is None, "it goes on", SOON)
        assert torch.enqueue("true", agent="dev-1").result(timeout=30).succeeded
    finally:
        other.close()


def test_a_stop_of_this_machine_alone_outlives_the_fleets(torch: Torch, node: Node) -> None:
    worker = node.agent_worker("dev-1")
    cli("stop", "--here", "--reason", "main\x1b[2Jten\nance", node=node)
    torch.stop("all of you")
    torch.start()
    assert Stop.model_validate_json((node.state / "STOP").read_bytes()).reason == "main [2Jten ance"
    waiting = stays_queued(torch, worker)
    assert "still stopped" not in cli("start", "--here", node=node)
    assert waiting.result(timeout=SOON).succeeded


def test_a_coding_agent_is_interrupted_at_its_task_and_at_a_message(torch: Torch, node: Node) -> None:
    kind = FakeKind(node)
    worker = kind.worker()
    kind.cli.play(Scenario(Turn((Work(600), Say("Late.")))))
    task = torch.enqueue("a long one", agent="developer-1")
    until(lambda: worker.agent_state is AgentState.WORKING and kind.prompts(), "it works")
    process = worker.pane()
    torch.stop("enough")
    until(lambda: task.status is TaskState.QUEUED, "the task has gone back", 2 * SOON)
    assert worker.pane() == process
    kind.cli.play(Scenario(Turn((Work(600), Say("Late.")))))
    torch.start()
    until(lambda: len(kind.prompts()) == 2, "it works again")
    task.cancel()
    kind.cli.play(Scenario(Turn((Work(600), Say("Late.")))))
    sent = NovaOrchestrator().send_message("developer-1", "think about it")
    NovaOrchestrator().await_delivery(sent.id, 30)
    until(lambda: worker.agent_state is AgentState.WORKING, "it works on the message")
    torch.stop("enough of that, too")
    until(lambda: "esc to interrupt" not in worker.tmux("capture-pane", "-p"), "it has let go", 2 * SOON)
    assert worker.pane() == process


def test_json_tells_programs_of_a_pause(torch: Torch, node: Node) -> None:
    node.agent_worker("dev-1")
    cli("pause", "dev-1", "--reason", "why not")
    (told,) = json.loads(cli("agents", "--json"))
    assert (told["paused"]["by"]["name"], told["paused"]["reason"]) == ("operator", "why not")
    assert "by operator: why not" in cli("agent", "dev-1")


def test_a_machine_without_workers_tells_of_its_stop_with_its_next_command(
    torch: Torch,
    node: Node,
    broker: FaultyBroker,  # noqa: F811
) -> None:
    node.agent_worker("dev-1")
    broker.stop()
    cli("stop", "--all", code=4)
    broker.start()
    assert not (node.state / "STOP").exists()
    cli("tasks")
    until((node.state / "STOP").exists, "the other machine is told", SOON)
    until(lambda: torch.agent("dev-1").stopped, "its agent keeps to it")
    torch.start()
    assert torch.enqueue("true", agent="dev-1").result(timeout=30).succeeded

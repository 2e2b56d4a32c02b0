"""Who takes which task, and when: asserted by what the agents did, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery.result import AsyncResult
from clients import read_settings_anew
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import Task, TaskState, Torch
from torch_tasks.app import app
from torch_tasks.errors import TaskIdTaken
from torch_tasks.model.task import FailureKind


def busy(torch: Torch, agent: str, folder: Path) -> Task:
    """Keep the agent busy until the file ``free`` is in the folder."""
    task = torch.enqueue(f"touch {folder}/busy; until [ -e {folder}/free ]; do sleep 0.02; done", agent=agent)
    until((folder / "busy").exists, "the agent is busy")
    return task


@pytest.fixture(scope="module")
def web(shared_node: Node) -> AgentWorker:
    """A developer who knows python and auth."""
    return shared_node.agent_worker("web-1", skills=["python", "auth"])


@pytest.fixture(scope="module")
def api(shared_node: Node) -> AgentWorker:
    """A developer who knows python alone."""
    return shared_node.agent_worker("api-1", skills=["python"])


@pytest.fixture(scope="module")
def qa(shared_node: Node) -> AgentWorker:
    """A tester who knows python."""
    return shared_node.agent_worker("qa-1", role="qa", skills=["python"])


def test_tasks_run_where_all_their_skills_are(torch: Torch, web: AgentWorker, api: AgentWorker) -> None:
    tasks = [torch.enqueue("echo $TORCH_AGENT_ID", role="developer", skills=["auth", "python"]) for _ in range(10)]
    assert {task.result(timeout=30).answer for task in tasks} == {"web-1\n"}


def test_a_free_agent_takes_what_a_busy_one_could_also_do(
    torch: Torch, web: AgentWorker, api: AgentWorker, tmp_path: Path
) -> None:
    occupied = busy(torch, "web-1", tmp_path)
    tasks = [torch.enqueue("echo $TORCH_AGENT_ID", role="developer", skills=["python"]) for _ in range(3)]
    assert {task.result(timeout=30).answer for task in tasks} == {"api-1\n"}
    assert not occupied.status.ended
    (tmp_path / "free").touch()
    occupied.result(timeout=30)


def test_a_role_is_asked_for_by_its_name(torch: Torch, web: AgentWorker, qa: AgentWorker) -> None:
    tasks = [torch.enqueue("echo $TORCH_AGENT_ID", role="QA") for _ in range(5)]
    assert {task.result(timeout=30).answer for task in tasks} == {"qa-1\n"}


def test_a_task_without_a_role_is_for_whoever_has_the_skills(
    torch: Torch, web: AgentWorker, api: AgentWorker, qa: AgentWorker, tmp_path: Path
) -> None:
    gates = {agent: tmp_path / agent for agent in ("web-1", "qa-1")}
    for gate in gates.values():
        gate.mkdir()
    held = [busy(torch, agent, gate) for agent, gate in gates.items()]
    assert torch.enqueue("echo $TORCH_AGENT_ID", skills=["python"]).result(timeout=30).answer == "api-1\n"
    (gates["qa-1"] / "free").touch()
    held[1].result(timeout=30)
    occupied = busy(torch, "api-1", tmp_path)
    assert torch.enqueue("echo $TORCH_AGENT_ID", skills=["python"]).result(timeout=30).answer == "qa-1\n"
    for folder in (tmp_path, gates["web-1"]):
        (folder / "free").touch()
    for task in (*held, occupied):
        task.result(timeout=30)


def test_a_task_for_one_agent_waits_for_that_agent(
    torch: Torch, web: AgentWorker, api: AgentWorker, tmp_path: Path
) -> None:
    busy(torch, "api-1", tmp_path)
    task = torch.enqueue("echo $TORCH_AGENT_ID", agent="api-1")
    assert torch.enqueue("echo $TORCH_AGENT_ID", agent="web-1").result(timeout=30).answer == "web-1\n"
    assert task.status is TaskState.QUEUED
    (tmp_path / "free").touch()
    assert task.result(timeout=30).answer == "api-1\n"


def test_a_task_that_nobody_can_do_says_so_and_runs_when_somebody_can(
    torch: Torch, shared_node: Node, web: AgentWorker
) -> None:
    task = torch.enqueue("echo $TORCH_AGENT_ID", skills=["rust"])
    pinned = torch.enqueue("echo pinned", agent="rust-1")
    assert task.record().unroutable
    assert pinned.record().unroutable
    assert {record.spec.id for record in torch.tasks() if record.unroutable} == {task.id, pinned.id}
    shared_node.agent_worker("rust-1", skills=["rust"])
    assert task.result(timeout=30).answer == "rust-1\n"
    assert pinned.result(timeout=30).answer == "pinned\n"
    assert not task.record().unroutable


def test_a_newly_demanded_queue_is_served_before_the_next_heartbeat(torch: Torch, shared_node: Node) -> None:
    pace = {"TORCH_HEARTBEAT_SECONDS": "60", "TORCH_OFFLINE_SECONDS": "120"}
    shared_node.agent_worker("ops-1", role="ops", skills=["shell", "net"], **pace)
    assert torch.enqueue("true", agent="ops-1").result(timeout=30).succeeded
    for skills in ([], ["net"], ["shell"], ["net", "shell"]):
        assert torch.enqueue("true", role="ops", skills=skills).result(timeout=15).succeeded


@pytest.mark.parametrize("same_queue", [True, False], ids=["in one queue", "across queues"])
def test_the_urgent_task_is_next_and_equals_run_first_in_first_out(
    torch: Torch, web: AgentWorker, tmp_path: Path, same_queue: bool
) -> None:
    busy(torch, "web-1", tmp_path)

    def note(word: object, priority: str, skills: list[str]) -> Task:
        return torch.enqueue(f"echo {word} >> {tmp_path}/order", skills=skills, priority=priority)

    low = [note(number, "low", ["auth"]) for number in range(20)]
    normal = [note(f"normal-{number}", "normal", ["auth"]) for number in range(2)]
    urgent = note("urgent", "urgent", ["auth"] if same_queue else ["auth", "python"])
    (tmp_path / "free").touch()
    for task in (urgent, *normal, *low):
        assert task.result(timeout=30).succeeded
    order = (tmp_path / "order").read_text().split()
    assert order == ["urgent", "normal-0", "normal-1", *map(str, range(20))]


def test_a_task_cancelled_while_it_waits_never_runs(torch: Torch, api: AgentWorker, tmp_path: Path) -> None:
    busy(torch, "api-1", tmp_path)
    task = torch.enqueue(f"touch {tmp_path}/ran", agent="api-1")
    assert task.cancel() is TaskState.QUEUED
    assert task.status is TaskState.CANCELLED
    assert task.result(timeout=30).error.kind is FailureKind.CANCELLED
    (tmp_path / "free").touch()
    assert torch.enqueue("echo next", agent="api-1").result(timeout=30).answer == "next\n"
    assert not (tmp_path / "ran").exists()
    assert AsyncResult(task.id, app=app).state == "REVOKED"


@pytest.mark.parametrize("how", ["cancel", "revoke"])
def test_a_running_task_that_is_cancelled_is_interrupted_and_its_agent_goes_on(
    torch: Torch, api: AgentWorker, tmp_path: Path, how: str
) -> None:
    task = torch.enqueue(f"touch {tmp_path}/began; sleep 600; touch {tmp_path}/went-on", agent="api-1")
    until((tmp_path / "began").exists, "the task runs")
    if how == "cancel":
        assert task.cancel() is TaskState.RUNNING
    else:
        AsyncResult(task.id, app=app).revoke(terminate=True)
    result = task.result(timeout=30)
    assert result.status is TaskState.CANCELLED
    assert result.error.kind is FailureKind.CANCELLED
    assert task.record().state is TaskState.CANCELLED
    until(lambda: AsyncResult(task.id, app=app).state == "REVOKED", "Celery calls it revoked")
    assert torch.enqueue("echo next", agent="api-1").result(timeout=30).answer == "next\n"
    assert not (tmp_path / "went-on").exists()


def test_a_task_revoked_while_it_waits_is_cancelled_in_its_record_too(
    torch: Torch, api: AgentWorker, tmp_path: Path
) -> None:
    busy(torch, "api-1", tmp_path)
    task = torch.enqueue(f"touch {tmp_path}/ran", agent="api-1")
    AsyncResult(task.id, app=app).revoke()
    (tmp_path / "free").touch()
    assert torch.enqueue("echo next", agent="api-1").result(timeout=30).answer == "next\n"
    assert not (tmp_path / "ran").exists()
    assert task.result(timeout=30).status is TaskState.CANCELLED


def test_cancelling_what_has_ended_changes_nothing(torch: Torch, api: AgentWorker) -> None:
    task = torch.enqueue("echo done", agent="api-1")
    task.result(timeout=30)
    assert task.cancel() is TaskState.SUCCEEDED
    assert task.result(timeout=30).answer == "done\n"


def test_the_same_id_twice_is_one_task(torch: Torch, web: AgentWorker, api: AgentWorker, tmp_path: Path) -> None:
    prompt = f"echo once >> {tmp_path}/effect; sleep 0.2"
    first, second = (torch.enqueue(prompt, id="same-1", skills=["python"]) for _ in range(2))
    assert first.result(timeout=30) == second.result(timeout=30)
    third = torch.enqueue(prompt, id="same-1", skills=["python"])
    assert third.result(timeout=30) == first.result(timeout=30)
    for agent in ("web-1", "api-1"):  # whatever was still on its way has been taken
        torch.enqueue("true", agent=agent, priority="low").result(timeout=30)
    assert len((tmp_path / "effect").read_text().splitlines()) == 1


@pytest.mark.parametrize("moment", ["while it waits", "after its end", "on another machine"])
def test_the_same_id_for_another_task_is_refused_by_name_and_the_first_is_done(
    torch: Torch, api: AgentWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    task_id = f"same-{moment.split()[0]}"
    occupied = busy(torch, "api-1", tmp_path)
    first = torch.enqueue(f"echo first >> {tmp_path}/effect", id=task_id, agent="api-1", priority="low")
    if moment == "after its end":
        (tmp_path / "free").touch()
        assert first.result(timeout=30).succeeded
    if moment == "on another machine":
        monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path / "other"))
        read_settings_anew()
    with pytest.raises(TaskIdTaken, match=f"task {task_id} was accepted before with another spec"):
        torch.enqueue(f"echo second >> {tmp_path}/effect", id=task_id, agent="api-1", priority="urgent")
    monkeypatch.undo()
    read_settings_anew()
    (tmp_path / "free").touch()
    assert first.result(timeout=30).succeeded
    assert occupied.result(timeout=30).succeeded
    assert torch.enqueue("true", agent="api-1", priority="low").result(timeout=30).succeeded
    assert "first" in first.record().spec.prompt
    assert (tmp_path / "effect").read_text() == "first\n"


def test_the_same_id_sent_to_many_at_once_runs_once(
    torch: Torch, web: AgentWorker, api: AgentWorker, tmp_path: Path
) -> None:
    tasks = [torch.enqueue(f"echo ran >> {tmp_path}/effect", id="many-1", skills=["python"]) for _ in range(20)]
    assert all(task.result(timeout=30).succeeded for task in tasks)
    for agent in ("web-1", "api-1"):
        torch.enqueue("true", agent=agent, priority="low").result(timeout=30)
    assert (tmp_path / "effect").read_text() == "ran\n"

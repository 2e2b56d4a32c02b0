"""A task that runs for long is looked after, and one that stands still is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from beats import BeatMachine
from machine import TORCH_TASKS
from nodes import AgentWorker, Node
from test_escalation import enter
from waiting import until

from torch_tasks import Torch
from torch_tasks.communication import MessageRecord, NovaOrchestrator
from torch_tasks.errors import CheckinNotFound
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import CheckinRecord
from torch_tasks.model.task import TaskState
from torch_tasks.monitoring import SystemMonitor
from torch_tasks.orchestration.followups import followed, followup_id

pytestmark = pytest.mark.slow


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A folder with a policy of short intervals."""
    (tmp_path / "policy.toml").write_text("followup_minutes = [0.05, 0.1]\nblocked_minutes = 0.15\n")
    return tmp_path


@pytest.fixture
def worker(node: Node, rules: Path, keep_house: Callable[..., BeatMachine]) -> AgentWorker:
    """A shell agent in a fleet that keeps house by these rules."""
    keep_house(TORCH_CONFIG_DIR=str(rules))
    return node.agent_worker("dev-1", TORCH_CONFIG_DIR=str(rules))


def followup(task_id: str) -> CheckinRecord | None:
    """The follow-up of this task, if there is one."""
    try:
        return fleet().checkins.get(followup_id(task_id))
    except CheckinNotFound:
        return None


def still() -> str:
    """What the system's health says of what stands still."""
    return next((why for why in SystemMonitor().get_system_health().reasons if why.startswith("no progress")), "")


def told(party: str, kind: str) -> list[MessageRecord]:
    """The messages of this kind in an inbox."""
    return [record for record in NovaOrchestrator().inbox(party) if record.message.kind == kind]


def test_a_task_that_runs_for_long_is_looked_after_until_it_ends(worker: AgentWorker, torch: Torch, node: Node) -> None:
    end = node.work / "end"
    task = torch.enqueue(f"echo {{task}}; until [ -e {end} ]; do sleep 0.1; done", agent="dev-1", timeout=600)
    record = until(lambda: followup(task.id), "it is looked after")
    checkin = record.checkin
    assert (checkin.target.agent, checkin.sender) == (
        "operator",
        "dev-1",
    )
    assert str(checkin.schedule) == "every 3 s"
    assert f"dev-1 has worked on task {task.id} since " in checkin.note
    assert "echo (task)" in checkin.note  # nothing in it is filled in
    # Somebody looks after its agent: then it needs no other one; when that is over, it does.
    own = torch.checkins.at("2031-01-01 9:00 UTC", "echo enough", "dev-1")
    until(lambda: followup(task.id) is None, "the follow-up gives way")
    torch.checkins.remove(own.checkin.id)
    until(lambda: followup(task.id), "it is looked after again")
    end.touch()
    assert task.result(timeout=30).succeeded
    until(lambda: followup(task.id) is None and not followed(fleet()), "nothing is left of it")


def test_what_stands_still_is_seen_and_brought_before_the_manager(
    worker: AgentWorker, torch: Torch, node: Node
) -> None:
    enter("pm-1", "project-manager")
    go, end = node.work / "go", node.work / "end"
    script = f"until [ -e {go} ]; do sleep 0.1; done; until [ -e {end} ]; do echo more; sleep 0.5; done"
    task = torch.enqueue(script, agent="dev-1", timeout=600)
    record = until(lambda: followup(task.id), "it is looked after")
    assert record.checkin.target.agent == "pm-1"
    assert f"dev-1 (task {task.id}, since " in until(still, "it is seen")
    argv = [TORCH_TASKS, "doctor", "--json"]
    said = json.loads(forked.run(argv).stdout)
    [finding] = [finding for finding in said if finding["what"] == "check-ins"]
    assert not finding["good"]
    assert finding["detail"].startswith(f"no progress at dev-1 (task {task.id}, ")
    [case] = until(lambda: told("pm-1", "escalation"), "the manager hears of it")
    assert f"Its task {task.id} runs without progress" in case.message.message
    go.touch()
    until(lambda: not still(), "it moves")
    end.touch()
    assert task.result(timeout=30).succeeded
    assert len(told("pm-1", "escalation")) == 1


def test_a_short_task_is_not_followed_up_nor_is_any_if_the_policy_says_so(
    node: Node, torch: Torch, rules: Path, keep_house: Callable[..., BeatMachine]
) -> None:
    first = keep_house(TORCH_CONFIG_DIR=str(rules))
    node.agent_worker("dev-1", TORCH_CONFIG_DIR=str(rules))
    until(lambda: torch.enqueue("true", agent="dev-1").result(timeout=30).succeeded, "it is done")
    (rules / "policy.toml").write_text("followup_minutes = []\nblocked_minutes = 0.001\n")
    node.agent_worker("dev-2", TORCH_CONFIG_DIR=str(rules))
    for process in first.processes:
        process.kill("SIGTERM")
    keep_house(TORCH_CONFIG_DIR=str(rules))
    end = node.work / "end"
    task = torch.enqueue(f"until [ -e {end} ]; do sleep 0.1; done", agent="dev-2", timeout=600)
    until(lambda: task.status is TaskState.RUNNING, "it runs")
    until(lambda: (task.record().handoff or False) and torch.agent("dev-2").current_task, "it is noted")
    assert followup(task.id) is None
    assert followed(fleet()) == []
    end.touch()
    assert task.result(timeout=30).succeeded


@pytest.mark.timeout(240)
def test_the_follow_up_comes_up_where_it_is_looked_at(worker: AgentWorker, torch: Torch) -> None:
    task = torch.enqueue("sleep 600", agent="dev-1", timeout=600)
    notes = until(lambda: told("operator", "checkin"), "a person is asked to look", 60)
    assert {record.message.sender for record in notes} == {"dev-1"}
    assert f"torch-tasks task {task.id}" in notes[0].message.message
    last = until(lambda: (record := followup(task.id)) and record.runs >= 3 and record, "it comes again", 60)
    until(lambda: len(told("operator", "checkin")) == 1, "unread ones do not pile up")
    assert last.checkin.id == followup_id(task.id)
    task.cancel()
    until(lambda: followup(task.id) is None, "it has ended with the task")

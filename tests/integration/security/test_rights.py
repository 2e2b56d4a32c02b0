"""What an agent may not do is refused where it is asked for, and again where it would be carried out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import forked
import pytest
from celery import chain
from machine import TORCH_TASKS
from nodes import Node
from waiting import until

from torch_tasks import TaskState, Torch, keys
from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.errors import NotAllowed, NotYours
from torch_tasks.fleet import fleet
from torch_tasks.model.hold import STOP, agent_scope
from torch_tasks.model.spawn import SpawnRequest, SpawnState
from torch_tasks.model.task import TaskSpec
from torch_tasks.orchestration import node_tasks
from torch_tasks.security.decision import require_no_more_than_own
from torch_tasks.state_folder import StateFolder
from torch_tasks.store.denials import KEPT
from torch_tasks.store.holds import new_hold
from torch_tasks.tasks.run import run

SOON = 20.0


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    return forked.run([TORCH_TASKS, *words])


def test_an_agent_changes_its_own_tasks_and_nobody_elses(torch: Torch, node: Node, tmp_path: Path) -> None:
    """Its own is what it works on, what is for it alone, and what it enqueued."""
    node.agent_worker("dev-1")
    gate = tmp_path / "gate"
    waiting = f"until [ -e {gate} ]; do sleep 0.05; done"
    others = torch.enqueue(waiting, role="qa")
    script = f"{TORCH_TASKS} cancel {others.id}; echo code $?\n{TORCH_TASKS} run --role qa --id of-dev-1 'echo mine'\n"
    script += f"{TORCH_TASKS} cancel of-dev-1; echo code $?\n"
    answer = torch.enqueue(script, agent="dev-1").result(timeout=60).answer
    assert "dev-1 may not do task.cancel: it takes the right 'change': [rights.agent] change = \"own\"" in answer
    assert f"task {others.id} belongs to no agent yet and was enqueued by operator" in answer
    assert "code 5\n" in answer
    assert answer.endswith("code 0\n")
    assert torch.task("of-dev-1").status is TaskState.CANCELLED
    assert torch.task("of-dev-1").record().enqueued_by.key == "agent:dev-1"  # type: ignore[union-attr]
    assert others.status is TaskState.QUEUED
    others.cancel()


@pytest.mark.usefixtures("empty")
def test_ownership_is_looked_at_for_every_sort_of_caller(torch: Torch) -> None:
    mine = torch.enqueue("true", role="nobody")
    ci, other = (Caller(other=CallerKind.PROGRAM, role="program", own_name=name) for name in ("ci", "other"))
    with acting_as(ci):
        task = torch.enqueue("true", role="nobody")
        with pytest.raises(NotYours, match="was enqueued by operator"):
            mine.cancel()
    with acting_as(other), pytest.raises(NotYours, match="was enqueued by ci"):
        task.cancel()
    with acting_as(Caller(agent="ci")), pytest.raises(NotYours):  # an agent of the same name is somebody else
        task.cancel()
    with acting_as(ci):
        assert task.cancel() is TaskState.QUEUED
    pinned = torch.enqueue("true", agent="dev-7")
    with acting_as(Caller(agent="dev-7")):
        assert pinned.cancel() is TaskState.QUEUED
    mine.cancel()


@pytest.mark.usefixtures("empty")
def test_every_refusal_is_counted_and_kept_with_who_what_and_by_which_rule(torch: Torch) -> None:
    task = torch.enqueue("true", role="nobody")
    with acting_as(Caller(agent="dev-1")):
        for _ in range(3):
            with pytest.raises(NotAllowed, match=r"\[rights.agent\] answer = \"none\" \(.*policy.toml, line \d+\)"):
                task.answer("1")
        with pytest.raises(NotAllowed, match="grant"):
            torch.enqueue("true", permissions="allow")
        with pytest.raises(NotAllowed):
            task.replay()
    found = json.loads(cli("policy", "refusals", "--json").stdout)
    assert found["counts"] == {
        "agent:dev-1 task.answer": 3,
        "agent:dev-1 task.enqueue": 1,
        "agent:dev-1 task.replay": 1,
    }
    assert [one["operation"] for one in found["latest"]] == ["task.replay", "task.enqueue", *["task.answer"] * 3]
    assert found["latest"][0]["by"]["name"] == "dev-1"
    assert 'revive = "none"' in found["latest"][0]["why"]
    assert "3 x agent:dev-1 task.answer" in cli("policy", "refusals").stdout
    task.cancel()


@pytest.mark.usefixtures("empty")
def test_what_is_kept_of_refusals_is_bounded(torch: Torch) -> None:
    del torch
    for number in range(1_200):
        with acting_as(Caller(agent=f"dev-{number}")), pytest.raises(NotAllowed):
            Torch().task("x").answer("1")
    denials = fleet().denials
    assert len(denials.latest(5_000)) < KEPT + 200
    counts = denials.counts()
    assert len(counts) == 1_001
    assert counts["others"] == 200


def test_a_task_that_an_agent_published_past_every_door_is_refused_by_the_worker(
    torch: Torch, node: Node, tmp_path: Path
) -> None:
    """Also what follows it in a chain: who asked for the first asked for the next."""
    node.agent_worker("dev-1")
    effect = f"echo it ran >> {tmp_path}/effect"
    granting = TaskSpec.build(prompt=effect, agent="dev-1", permissions="allow", id="by-hand")
    with acting_as(Caller(agent="qa-1")):
        run.delay(granting)
        first = TaskSpec.build(prompt="echo first", agent="dev-1", id="first")
        second = TaskSpec.build(prompt=effect, agent="dev-1", permissions="allow", id="second")
        chain(run.s(first), run.s(second)).apply_async()
    for name in ("by-hand", "second"):
        until(lambda name=name: fleet().records.find(name), f"{name} is there")
        result = torch.task(name).result(timeout=SOON)
        assert (result.status, result.agent, result.attempts) == (TaskState.FAILED, None, 0)
        assert result.error
        assert result.error.kind == "refused"
        assert "qa-1 may not do task.enqueue: it takes the right 'grant': [rights.agent] grant = \"none\"" in (
            result.error.message
        )
    assert torch.task("first").result(timeout=SOON).succeeded
    assert not (tmp_path / "effect").exists()
    assert torch.enqueue(effect, agent="dev-1", permissions="allow").result(timeout=SOON).succeeded
    assert fleet().denials.counts() == {"agent:qa-1 task.enqueue": 2}


@pytest.mark.usefixtures("unsigned")
def test_a_message_that_no_process_of_torch_sent_has_the_rights_of_a_program(torch: Torch, node: Node) -> None:
    from celery import Celery

    from torch_tasks.app import app

    node.agent_worker("dev-1")
    plain = Celery("plain", broker=app.conf.broker_url)
    plain.conf.broker_transport_options = {**app.conf.broker_transport_options}
    with plain.connection_for_write() as connection:
        for name, more in (("plain", {}), ("granting", {"permissions": "allow"})):
            plain.send_task(
                "torch.run",
                ({"id": name, "prompt": "echo hello", **more},),
                task_id=name,
                queue="torch.agent.dev-1",
                connection=connection,
            )
    until(lambda: fleet().records.find("granting"), "it has come")
    assert torch.task("plain").result(timeout=SOON).answer == "hello\n"
    result = torch.task("granting").result(timeout=SOON)
    assert result.error
    assert result.error.kind == "refused"
    assert "[rights.program]" in result.error.message


def test_the_node_worker_decides_by_who_asks_for_an_agent_or_its_end(torch: Torch, node: Node) -> None:
    """Whatever let the request into its queue; and no agent has one started that may do more than it may itself."""
    node.node_worker("qa-1:qa", "pm-1:project-manager")
    until(lambda: len(torch.agents(online=True)) == 2, "both are there", 60)
    with acting_as(Caller(agent="qa-1")):
        outcome = node_tasks.spawn.delay("developer").get(timeout=SOON)
        assert (outcome["error"], outcome["agent_id"]) == ("NotAllowed", None)
        assert '[rights.agent] spawn = "none"' in outcome["reason"]
        order = {"mode": "now", "by": "operator", "note": ""}
        queue = keys.node_queue(node.name)
        refused = node_tasks.retire.apply_async(("pm-1", order), queue=queue).get(timeout=SOON)
        assert "agent pm-1 is the child of no agent" in refused
        assert "qa-1 may not do agent.release" in node_tasks.release.apply_async(("pm-1",), queue=queue).get(SOON)
        reserved, _ = fleet().spawns.reserve(SpawnRequest.build(role="developer", id="past-every-door"))
        node_tasks.order_start(reserved)

    def state_of_the_place() -> SpawnState:
        return fleet().spawns.get_many([reserved.agent_id])[0].state

    until(lambda: state_of_the_place() is SpawnState.FAILED, "its place is given back at once", SOON)
    with acting_as(Caller(agent="pm-1")):
        for asked, why in (
            ({"role": "developer", "parent": "qa-1"}, "that is qa-1's"),
            ({"role": "release-manager", "parent": "pm-1"}, None),
        ):
            outcome = node_tasks.spawn.delay(**asked).get(timeout=60)
            assert outcome["ready"] == (why is None), outcome
            assert (why or "") in outcome["reason"]
    assert {info.agent_id for info in torch.agents()} == {"qa-1", "pm-1", "release-manager-1"}
    with acting_as(Caller(agent="release-manager-1", role="release-manager")), pytest.raises(NotAllowed):
        require_no_more_than_own("project-manager")


def test_a_hold_that_an_agent_wrote_past_every_door_is_not_obeyed_and_is_undone(torch: Torch, node: Node) -> None:
    worker = node.agent_worker("dev-1")
    with acting_as(Caller(agent="qa-1", role="qa")):
        for scope in (agent_scope("dev-1"), STOP):
            fleet().holds.put(scope, new_hold("so that dev-1 rests"))
    until(lambda: all(hold.lifted for hold in fleet().holds.latest().root.values()), "both are undone")
    assert all("[rights.agent] hold" in hold.reason for hold in fleet().holds.latest().root.values())
    assert torch.enqueue("true", agent="dev-1").result(timeout=SOON).succeeded
    assert not StateFolder(node.state).stop.exists()
    assert fleet().denials.counts() == {"agent:qa-1 agent.pause": 1, "agent:qa-1 fleet.stop": 1}
    torch.pause("dev-1", reason="it is noisy")
    with acting_as(Caller(agent="qa-1", role="qa")):
        fleet().holds.put(agent_scope("dev-1"), new_hold(lifted=True))
    until(lambda: fleet().holds.latest().pause_of("dev-1", ""), "what held before holds again")
    until(lambda: worker.info and worker.info.hold_reason == "paused by operator: it is noisy", "it says so")
    until(lambda: fleet().denials.counts().get("agent:qa-1 agent.resume") == 1, "it is counted, once")
    assert torch.resume("dev-1").confirmed == ("dev-1",)

"""An agent that does not come back leaves the list, is forgotten when told so, and no check-in for it goes unheard."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime

import forked
from machine import TORCH_TASKS
from nodes import Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.checkins.delivery import CheckinDelivery
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import Checkin, Fire, SlotOutcome
from torch_tasks.model.message import MessageState
from torch_tasks.orchestration.attention import NeedKind, needs


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """How a command of a person ends; who is silent for a second counts as gone."""
    env = {**os.environ, "TORCH_DETACHED_SECONDS": "1"}
    return forked.run([TORCH_TASKS, *words], env)


def die(node: Node, *agents: str) -> None:
    """The machine dies with its node worker and these agents."""
    node.node_workers[-1].kill()
    for agent in agents:
        worker = node.kept_worker(agent)
        assert worker
        worker.kill()


def test_an_agent_that_is_gone_leaves_the_list_and_is_forgotten_when_told_so(node: Node, torch: Torch) -> None:
    worker = node.node_worker("dev-1:developer", "boss-1:boss")
    until(lambda: len(torch.agents(online=True)) == 2, "both are there")
    refused = command("agents", "forget", "dev-1")
    assert (refused.returncode, refused.stderr) == (
        1,
        "Error: agent dev-1 cannot be forgotten: it is online; 'torch-tasks retire dev-1' ends it\n",
    )
    die(node, "dev-1", "boss-1")
    pinned = torch.enqueue("echo never", agent="dev-1")
    sent = NovaOrchestrator(sender="boss-1").send_message("dev-1", "are you there?")
    until(lambda: "2 agents are gone" in command("agents").stderr, "they are gone", 60)
    assert "dev-1" not in command("agents").stdout
    assert json.loads(command("agents", "--json").stdout) == []
    [row] = [line.split() for line in command("agents", "--all").stdout.splitlines() if line.startswith("dev-1")]
    assert "gone" in row
    assert {one["agent_id"]: one["gone"] for one in json.loads(command("agents", "--all", "--json").stdout)} == {
        "boss-1": True,
        "dev-1": True,
    }
    done = command("agents", "forget", "dev-1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "agent dev-1 was forgotten; should it come back with node-a, it is registered again\n"
        f"tasks it left: {pinned.id}\nmessages it did not read, now dead: {sent.id}\n"
    )
    assert [info.agent_id for info in torch.agents()] == ["boss-1"]
    result = pinned.result(timeout=20)
    assert result.status is TaskState.FAILED
    assert "agent dev-1 was forgotten, and the task asks for no other" in result.summary
    record = NovaOrchestrator().message(sent.id)
    assert (record.state, record.note) == (MessageState.DEAD, "agent dev-1 was forgotten")
    said = command("send", "dev-1", "hello")
    assert said.returncode == 2
    assert "agent dev-1 was forgotten at " in said.stderr
    assert command("agents", "forget", "dev-1").returncode == 1
    worker.start()
    worker.ready()
    assert torch.enqueue("echo back", role="developer").result(timeout=60).answer == "back\n"


def fired(torch: Torch, checkin: Checkin) -> Fire:
    """How the check-in comes up once."""
    until(lambda: fleet().registry.has_heard_all(), "the broker has run for long enough")
    return CheckinDelivery(fleet(), checkin, datetime.now(UTC), 0.0, lambda spec: None).deliver()


def test_a_check_in_for_an_agent_that_has_retired_is_refused_and_who_set_it_hears_of_it(
    node: Node, torch: Torch
) -> None:
    node.node_worker("boss-1:boss", "qa-1:qa")
    until(lambda: len(torch.agents(online=True)) == 2, "both are there")
    NovaOrchestrator(sender="qa-1").send_message("operator", "hello")  # so that it is known as a party of messages
    [mine, theirs] = [
        torch.checkins.every("10m", "look at the build of the shop", "qa-1").checkin,
        type(torch.checkins)("boss-1").every("10m", "look at the tests of the shop", "qa-1").checkin,
    ]
    torch.retire("qa-1")
    until(lambda: fleet().registry.has_heard_all(), "the broker has run for long enough")
    found = {need.id: need for need in needs(fleet()) if need.kind is NeedKind.CHECKIN}
    assert set(found) == {f"checkin {mine.id}", f"checkin {theirs.id}"}, "a person sees it before it comes up"
    assert found[f"checkin {mine.id}"].text == (
        f"check-in {mine.id} (look at the build of the shop) reaches no agent: qa-1 is gone"
    )
    for _ in range(3):
        for asked in (mine, theirs):
            fire = fired(torch, asked)
            assert fire.outcome is SlotOutcome.REFUSED
            assert "agent qa-1 has retired at " in fire.note
    told = [one for one in NovaOrchestrator().history("boss-1") if one.message.target == "boss-1"]
    assert len(told) == 1, "it hears of it once"
    assert told[0].message.message.startswith(
        f"Your check-in {theirs.id} (look at the tests of the shop) reached no agent"
    )
    until(lambda: "Your check-in" in screen(node, "boss-1"), "it reads it in its pane")


def screen(node: Node, agent_id: str) -> str:
    argv = ["tmux", "-S", str(node.state / "agents" / agent_id / "tmux"), "capture-pane", "-p", "-J", "-S", "-100"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10).stdout

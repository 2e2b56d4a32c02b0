"""An agent whose program wants a login that only a person can give."""

from __future__ import annotations

import pytest
from fake_kind import FakeKind
from fakes.cli.scenario import Scenario, Start
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.model.agent import AgentState

HINT = "logged out: 'torch-tasks attach developer-1' and log in"
LOGGED = "agent developer-1 wants a login: run 'torch-tasks attach developer-1' and log in"


@pytest.fixture
def fake(node: Node) -> FakeKind:
    """A program that asks its person to sign in when it starts, and then whether the folder is to be trusted."""
    return FakeKind(node, scenario=Scenario(start=Start(dialogs=("sign-in", "trust"))))


def wants_login(worker: AgentWorker) -> bool:
    return worker.agent_state is AgentState.LOGIN


def log_in(worker: AgentWorker) -> None:
    """As a person does in its pane."""
    until(lambda: "Sign in to go on:" in worker.screen(), "it asks")
    worker.tmux("send-keys", "1")


def test_others_take_what_they_can_and_the_rest_waits_for_the_login(fake: FakeKind, node: Node, torch: Torch) -> None:
    worker = fake.worker()
    until(lambda: wants_login(worker), "the fleet knows that it wants a login")
    assert LOGGED in worker.logs()
    pinned = torch.enqueue("for developer-1 alone", agent="developer-1")
    assert (pinned.status, pinned.record().waits) == (TaskState.QUEUED, f"developer-1 is {HINT}")
    node.agent_worker("developer-2")
    assert torch.enqueue("echo mine", role="developer").result(timeout=30).agent == "developer-2"
    assert pinned.status is TaskState.QUEUED
    log_in(worker)
    assert pinned.result(timeout=30).succeeded
    assert len(fake.prompts()) == 1


def test_a_new_worker_finds_the_login_screen_as_it_was(fake: FakeKind, torch: Torch) -> None:
    worker = fake.worker()
    until(lambda: wants_login(worker), "the fleet knows that it wants a login")
    pane = worker.pane()
    worker.kill()
    worker.restart()
    until(lambda: wants_login(worker), "its new worker knows it, too")
    assert worker.pane() == pane
    log_in(worker)
    assert torch.enqueue("and then", agent="developer-1").result(timeout=30).succeeded

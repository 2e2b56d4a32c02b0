"""A prompt's way into a coding agent's program: what is asserted is what the model received."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_kind import FakeKind, words
from nodes import AgentWorker, Node

from torch_tasks import TaskState, Torch


@pytest.fixture(scope="module")
def fake(shared_node: Node) -> FakeKind:
    return FakeKind(shared_node)


@pytest.fixture(scope="module")
def agent(fake: FakeKind) -> AgentWorker:
    return fake.worker()


def test_simple(fake: FakeKind, agent: AgentWorker, torch: Torch) -> None:
    task = torch.enqueue("say hello", id="t-1")
    result = task.result(timeout=30)
    print(result)
    for entry in torch.history("t-1") if hasattr(torch, "history") else []:
        print(entry)
    assert result.succeeded
    print(fake.prompts())

"""Each class of tests has a fleet and a fake model of its own, and real CLIs at homes of their own.

Without its CLI, a test is skipped, with the reason; with ``TORCH_TEST_REAL_AGENTS=required`` it fails instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import client_of
from hosted import Hosted
from installed import PATH, needs
from machine import short_folder
from nodes import AgentWorker, Broker, Node

from torch_tasks import Torch
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.home import Home

SECONDS = 400


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real CLIs take their time, and more of it on a busy machine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="class")
def torch(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torch]:
    """A client of an empty broker: the classes of a module give their tasks the same ids."""
    with client_of(broker, tmp_path_factory.mktemp("client")) as torch:
        broker.empty()
        yield torch


@pytest.fixture(scope="class")
def shared_node(broker: Broker, torch: Torch) -> Iterator[Node]:
    """One machine for all tests of a class."""
    node = Node("node-a", broker, torch)
    yield node
    node.close()


@pytest.fixture(scope="class")
def shell(shared_node: Node) -> AgentWorker:
    """An agent that finishes what others hand over."""
    return shared_node.agent_worker("finisher-1", role="finisher")


@pytest.fixture(scope="class")
def agent(request: pytest.FixtureRequest, shared_node: Node, torch: Torch) -> Iterator[Hosted]:
    """The agent of a class of promises, and its model."""
    home_class: type[Home] = request.cls.home
    needs(home_class.cli)
    folder = short_folder()
    with FakeLLM(folder / "llm") as llm:
        home = home_class(folder / "home", llm, path=PATH)
        try:
            yield Hosted(home, shared_node, torch, "developer-1")
        finally:
            home.clear()
    shutil.rmtree(folder)

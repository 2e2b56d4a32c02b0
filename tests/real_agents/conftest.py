"""Each test has a fake model of its own, and real CLIs at homes of their own.

A test names its CLI by the parameter or fixture ``cli``; without that CLI it is skipped, with the reason. With
``TORCH_TEST_REAL_AGENTS=required`` it fails instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driven import Driven
from hosted import Hosted
from installed import AGENTS, PATH
from machine import short_folder
from nodes import Node

from torch_tasks import Torch
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.certify.homes import HOMES

SECONDS = 400


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real CLIs take their time, and more of it on a busy machine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(SECONDS))


def needs(cli: str) -> None:
    """Skip the test if this CLI is not installed."""
    if (AGENTS / "bin" / cli).exists():
        return
    failed = AGENTS / "failed" / cli
    why = failed.read_text().strip() if failed.exists() else f"{cli} is not installed; .ci/real-agents does it"
    if os.environ.get("TORCH_TEST_REAL_AGENTS") == "required":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for tmux sockets."""
    folder = short_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def llm(folder: Path) -> Iterator[FakeLLM]:
    """A fake model, new for this test."""
    with FakeLLM(folder / "llm") as llm:
        yield llm


@pytest.fixture
def new_home(folder: Path, llm: FakeLLM) -> Iterator[Callable[..., Home]]:
    """Makes homes: ``new_home(cli, agent_id)``."""
    homes: list[Home] = []

    def new_home(cli: str, agent_id: str = "developer-1") -> Home:
        needs(cli)
        homes.append(HOMES[cli](folder / f"home-{agent_id}", llm, agent_id, PATH))
        return homes[-1]

    yield new_home
    for home in homes:
        home.clear()


@pytest.fixture
def home(cli: str, new_home: Callable[..., Home]) -> Home:
    """The home of ``developer-1``."""
    return new_home(cli)


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


@pytest.fixture
def driven(home: Home, folder: Path) -> Iterator[Driven]:
    """The CLI, started at home and ready."""
    driven = Driven(home, folder)
    try:
        driven.wait_ready()
        yield driven
    finally:
        driven.close()

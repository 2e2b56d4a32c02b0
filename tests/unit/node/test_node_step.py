"""What makes a Celery worker a node worker can be built, whatever the settings ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_tasks.app import app
from torch_tasks.fleet import fleet
from torch_tasks.settings import settings
from torch_tasks.transport.callbacks import LeaseListeners
from torch_tasks.workers.node.local_agents import LocalAgents, Roster
from torch_tasks.workers.node.node_presence import NodePresence
from torch_tasks.workers.node.node_worker import NodeStep


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_BROKER_URL", f"unix://{tmp_path}/none")
    monkeypatch.setattr(app.leases, "listeners", LeaseListeners())
    for cached in (settings, fleet):
        cached.cache_clear()
    yield
    for cached in (settings, fleet):
        cached.cache_clear()


@pytest.mark.parametrize("notify", ["", "true"])
def test_a_step_has_all_loops_of_a_node(notify: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_NOTIFY_COMMAND", notify)
    agents = LocalAgents(Roster(tmp_path / "roster.json", []), fleet())
    monkeypatch.setattr(NodeStep, "agents", agents, raising=False)
    monkeypatch.setattr(NodeStep, "presence", NodePresence(fleet(), agents.reports), raising=False)
    step = NodeStep(app)
    names = [loop._name for loop in step._loops]
    assert {"maintenance", "git discipline", "audit", "keep keys"} <= set(names)
    assert ("notifier" in names) == bool(notify)
    assert len(names) == len(set(names))

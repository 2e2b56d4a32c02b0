"""Keys of a machine and the fleet's root are replaced while tasks flow: none is lost, and none done twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from clients import read_settings_anew
from nodes import Broker, Node

from torch_tasks import Torch
from torch_tasks.signing.keyring import keyring

TASKS, ROTATIONS, SECONDS = 40, 4, 120.0


def test_rotating_under_load_loses_nothing(
    torch: Torch, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_SIGNING", "enforce")
    monkeypatch.setenv("TORCH_KEYS_DIR", str(tmp_path / "keys"))
    read_settings_anew()
    node = Node("node-a", broker, torch)
    done = tmp_path / "done"
    try:
        node.agent_worker("dev-1")
        tasks = []
        for number in range(TASKS):
            tasks.append(torch.enqueue(f"echo {number} >> {done}; echo ok", agent="dev-1"))
            if number % (TASKS // ROTATIONS) == 0:
                keyring().rotate_root()
                keyring().rotate()
        deadline = time.monotonic() + SECONDS
        assert len(keyring().fleet_keys.roots) == 1 + ROTATIONS
        answers = [task.result(timeout=deadline - time.monotonic()).answer for task in tasks]
    finally:
        node.close()
        read_settings_anew()
    assert answers == ["ok\n"] * TASKS
    assert sorted(map(int, done.read_text().split())) == list(range(TASKS))

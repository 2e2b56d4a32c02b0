"""A release that cannot share a fleet with the one that wrote to the broker says so before it tries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import forked
import pytest
from nodes import Broker

from torch_tasks import Torch, keys
from torch_tasks.caller import CallerKind
from torch_tasks.errors import OtherFormat
from torch_tasks.fleet import fleet
from torch_tasks.machine import fleet_keys, joining
from torch_tasks.model.fleet_format import FORMAT
from torch_tasks.settings import settings
from torch_tasks.signing.keyring import keyring

LATER = json.dumps({"format": FORMAT + 1, "release": "9.1.0"})
REFUSAL = f"holds a fleet in format {FORMAT + 1} (of Torch 9.1.0), and this Torch {version('torch-tasks')} reads"
pytestmark = pytest.mark.usefixtures("empty")


@pytest.fixture(autouse=True)
def looks_anew() -> Iterator[None]:
    """This process knows nothing yet of the broker."""
    fleet_keys._checked.clear()
    yield
    fleet_keys._checked.clear()


def noted(broker: Broker) -> dict[str, object]:
    found: dict[str, object] = json.loads(broker.client.get(keys.FLEET_FORMAT) or "{}")
    return found


def test_the_first_process_notes_the_format_and_its_release(broker: Broker, torch: Torch) -> None:
    assert noted(broker) == {}
    assert torch.nodes() == []
    assert noted(broker) == {"format": FORMAT, "release": version("torch-tasks")}


def test_nobody_of_another_format_begins(broker: Broker, torch: Torch) -> None:
    broker.client.set(keys.FLEET_FORMAT, LATER)
    before = sorted(broker.client.keys("*"))
    with pytest.raises(OtherFormat, match="cannot work together"):
        torch.enqueue("echo never")
    celery = (sys.executable, "-m", "celery", "-A", "torch_tasks")
    commands = {
        "command": (sys.executable, "-m", "torch_tasks.cli", "run", "echo never"),
        "up": (sys.executable, "-m", "torch_tasks.cli", "up", "--detach"),
        "node worker": (*celery, "worker", "--node"),
        "agent worker": (*celery, "worker", "--id", "qa-1", "--role", "qa"),
        "beat": (*celery, "beat"),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    started = {name: subprocess.Popen(argv, text=True, **pipes) for name, argv in commands.items()}
    for name, process in started.items():
        said = process.communicate(timeout=60)[1]
        assert (process.returncode, said.startswith("Error: ")) == (1, True), f"{name}: {said}"
        assert REFUSAL in said, name
        assert "pip install torch-tasks==9.1.0" in said, name
    assert sorted(broker.client.keys("*")) == before
    assert broker.client.get(keys.FLEET_FORMAT) == LATER


def test_a_machine_of_another_format_does_not_join(broker: Broker, torch: Torch, tmp_path: Path) -> None:
    assert torch.nodes() == []
    fleet_keys.agree(fleet(), keyring(settings()))
    token = joining.InvitationDesk(fleet(), keyring(settings())).invite(60)
    broker.client.set(keys.FLEET_FORMAT, LATER)
    elsewhere = settings().model_copy(update={"state_dir": tmp_path / "state", "keys_dir": tmp_path / "keys"})
    with pytest.raises(OtherFormat, match=r"of Torch 9\.1\.0"):
        joining.join(token, elsewhere, 5)
    assert not (tmp_path / "keys").exists()
    assert keyring(settings()).identity(CallerKind.NODE)


def test_what_the_first_release_left_is_told_by_its_registry(broker: Broker, torch: Torch) -> None:
    broker.client.hset(keys.AGENT_REGISTRY, "developer-1", "{}")
    with pytest.raises(OtherFormat, match=r"format 1 \(of Torch 0\.1\.0\)"):
        torch.agents()
    assert noted(broker) == {}


def test_a_broker_that_forgot_the_note_is_told_by_its_nodes(broker: Broker, torch: Torch) -> None:
    entry = {"name": "far", "format": FORMAT + 1, "version": "9.1.0", "a new field": 1}
    broker.client.hset(keys.NODE_REGISTRY, "far", json.dumps(entry))
    with pytest.raises(OtherFormat, match=r"of Torch 9\.1\.0"):
        torch.agents()
    assert noted(broker) == {}


@pytest.mark.parametrize("junk", ["}{", "[]", '{"format": "many"}', "x" * 1000])
def test_junk_in_the_note_stops_no_fleet(broker: Broker, torch: Torch, junk: str) -> None:
    broker.client.set(keys.FLEET_FORMAT, junk)
    assert torch.agents() == []
    assert noted(broker)["format"] == FORMAT


def test_the_check_is_made_where_nothing_is_signed_too(
    broker: Broker, torch: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.client.set(keys.FLEET_FORMAT, LATER)
    environment = {**os.environ, "TORCH_SIGNING": "off"}
    argv = (sys.executable, "-m", "torch_tasks.cli", "agents")
    said = forked.run(argv, environment)
    assert (said.returncode, REFUSAL in said.stderr) == (1, True)

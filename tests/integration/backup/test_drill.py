"""A fleet is lost with its disks and restored elsewhere: what had ended stays so, what was open runs once.

What came after the backup is known by name to the machine of a program that lived on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_servers import KINDS, BareServer, bare_server
from machine import Machine
from nodes import PACE
from pyrage import x25519
from waiting import until

NODE = "node-a"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(params=KINDS)
def elsewhere(request: pytest.FixtureRequest) -> Iterator[BareServer]:
    with bare_server(request.param) as server:
        yield server


@pytest.fixture
def former() -> Iterator[BareServer]:
    with bare_server() as server:
        yield server


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Machine]:
    """The machine of a program that enqueues, which lives on."""
    machine = Machine(**PACE, TORCH_NODE="desk", TORCH_KEYS_DIR=str(tmp_path / "keys"))
    yield machine
    machine.close()


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """To this file each task adds its id when it runs."""
    file = tmp_path / "ran"
    file.touch()
    return file


def runs(file: Path) -> Counter[str]:
    return Counter(file.read_text().split())


def fleet_machine(server: BareServer) -> Machine:
    return Machine(**PACE, TORCH_NODE=NODE, TORCH_BROKER_URL=server.url)


def test_a_fleet_that_is_lost_with_its_disks_goes_on_elsewhere(
    former: BareServer, elsewhere: BareServer, program: Machine, ran: Path, tmp_path: Path
) -> None:
    backup, key, owner = tmp_path / "fleet.backup", tmp_path / "key", x25519.Identity.generate()
    key.write_text(f"{owner}\n")
    program.env["TORCH_BROKER_URL"] = former.url

    def ask(name: str, *words: str) -> tuple[str, ...]:
        return ("run", f"echo {name} >> {ran}", "--id", name, *words)

    lost = fleet_machine(former)
    try:
        lost.torch("up", "--detach", "--no-beat", "--no-flower", "--agent", "dev-1:developer")
        lost.torch("keys", "issue", "--name", "desk", "--role", "operator", "--out", program.env["TORCH_KEYS_DIR"])
        program.torch(*ask("ended-before", "--wait"))
        program.torch(*ask("open-before", "--agent", "dev-2"))
        lost.torch("pause", "dev-1")
        asking = program.start(*ask("ended-later", "--agent", "dev-1", "--wait"))
        until(lambda: "ended-later" in lost.torch("tasks", "--json").stdout, "it is accepted")
        said = lost.torch("backup", str(backup), "--recipient", str(owner.to_public()), "--json")
        manifest = json.loads(said.stdout)
        assert (manifest["open"], manifest["ended"]) == (2, 1)
        lost.torch("resume", "dev-1")
        assert asking.wait(60) == 0
        program.torch(*ask("new-ended", "--wait"))
        program.torch(*ask("new-unknown"))
        until(lambda: runs(ran)["new-unknown"], "it has run")
    finally:
        lost.close()  # with its disks
    former.end()

    restored = fleet_machine(elsewhere)
    try:
        restored.torch("restore", str(backup), "--identity-file", str(key))
        program.env["TORCH_BROKER_URL"] = elsewhere.url
        assert json.loads(program.torch("backup", "lost", "--json").stdout) == {"lost": ["new-unknown"], "sent": []}
        agents = ("--agent", "dev-1:developer", "--agent", "dev-2:developer")
        restored.torch("up", "--detach", "--no-beat", "--no-flower", *agents)
        until(lambda: runs(ran)["open-before"], "what was open runs")
        states = {}

        def all_ended() -> bool:
            found = json.loads(restored.torch("tasks", "--json").stdout)
            states.update({one["spec"]["id"]: one["state"] for one in found})
            return set(states.values()) == {"succeeded"}

        until(all_ended, "all have ended")
        assert set(states) == {"ended-before", "open-before", "ended-later", "new-ended"}
        once = ("ended-before", "open-before", "ended-later", "new-ended", "new-unknown")
        assert runs(ran) == Counter(once)
        assert program.torch("run", "true", "--wait").returncode == 0  # in order, after what waited
        assert runs(ran) == Counter(once)
        assert json.loads(program.torch("backup", "lost", "--send", "all", "--json").stdout)["sent"] == ["new-unknown"]
        until(lambda: runs(ran)["new-unknown"] == 2, "it runs, as a person decided")
        assert json.loads(program.torch("backup", "lost", "--json").stdout) == {"lost": [], "sent": []}
    finally:
        restored.close()

"""A node worker has the new release of a program tried before agents start with it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate
from fake_kind import CERTIFY, kind_toml
from fakes.cli.client import FakeCli
from fakes.cli.scenario import Scenario, Turn, Ways
from fakes.cli.steps import AskModel
from machine import Machine
from waiting import until

from torch_tasks.machine.certificates import Certificates
from torch_tasks.model.certificate import Outcome
from torch_tasks.state_folder import StateFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

OLD, NEW = "1.0.0", "1.1.0"
UP = ("up", "--detach", "--no-beat", "--no-flower", "--agent", "dev-1:developer::fake")
TRIAL_SECONDS = 300


class Updated:
    """A machine on which an old release was certified, and the new one is installed."""

    def __init__(self, machine: Machine, ways: Ways) -> None:
        self.machine = machine
        cli = FakeCli(machine.folder / "fake", Scenario(default=Turn((AskModel(),)), ways=ways))
        program = machine.folder / "updated"
        program.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo {NEW} && exit\nexec {shlex.quote(str(cli.program))} "$@"\n'
        )
        program.chmod(0o755)
        agents = machine.folder / "config" / "agents"
        agents.mkdir(parents=True)
        (agents / "fake.toml").write_text(kind_toml([str(program), "--settings", "{hooks}"], hooks=True) + CERTIFY)
        self._certificates = Certificates(StateFolder(machine.state))
        self.certify(OLD, Outcome.HELD)

    def certify(self, release: str, outcome: Outcome) -> None:
        """Have a certificate that says this of the release."""
        self._certificates.keep(certificate("fake", release, outcome))

    def agent(self) -> dict[str, Any]:
        """The agent's entry, empty while there is none."""
        done = self.machine.torch("agent", "dev-1", "--json", code=None)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.torch("down", code=None)
    machine.close()


def test_a_new_release_is_certified_before_agents_start_with_it(machine: Machine) -> None:
    updated = Updated(machine, Ways())
    up = machine.torch(*UP, code=1)
    assert f"dev-1 is not ready: release {NEW} of fake is being certified" in up.stderr
    assert not (machine.state / "agents" / "dev-1").exists()
    until(lambda: updated.agent().get("state") == "ready", "it starts once its release is certified", TRIAL_SECONDS)
    entry = updated.agent()
    assert (entry["release"], entry["release_state"]) == (NEW, "certified")
    assert f"fake {NEW} certified" in machine.torch("doctor", code=None).stdout


def test_agents_stay_down_while_their_release_is_broken_unless_that_is_allowed(machine: Machine) -> None:
    updated = Updated(machine, Ways())
    updated.certify(NEW, Outcome.BROKEN)
    up = machine.torch(*UP, code=1)
    assert f"dev-1 is not ready: release {NEW} of fake is broken: not kept: prompts" in up.stderr
    assert "TORCH_CERTIFY=warn" in up.stderr
    assert f"fake {NEW} broken: not kept: prompts" in machine.torch("doctor", code=None).stdout
    updated.certify(NEW, Outcome.HELD)
    until(lambda: updated.agent().get("state") == "ready", "it starts once its release is good again")
    machine.torch("down")
    updated.certify(NEW, Outcome.BROKEN)
    up = machine.torch(*UP, TORCH_CERTIFY="warn")
    assert f"(fake {NEW} broken), ready" in up.stdout


def test_where_nothing_was_ever_tried_an_agent_starts_at_once(machine: Machine) -> None:
    updated = Updated(machine, Ways())
    Path(machine.state / "certificates" / "fake" / f"{OLD}.json").unlink()
    up = machine.torch(*UP)
    assert f"(fake {NEW} uncertified), ready" in up.stdout
    assert updated.agent()["release_state"] == "uncertified"

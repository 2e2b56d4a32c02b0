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
from fakes.cli.steps import AskModel, Say
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
        work = Turn((Say("It is done."),), match="real work")
        self._cli = FakeCli(machine.folder / "fake", Scenario(default=Turn((AskModel(),)), turns=(work,), ways=ways))
        program = self.install(NEW)
        agents = machine.folder / "config" / "agents"
        agents.mkdir(parents=True)
        (agents / "fake.toml").write_text(kind_toml([str(program), "--settings", "{hooks}"], hooks=True) + CERTIFY)
        self._certificates = Certificates(StateFolder(machine.state))
        self.certify(OLD, Outcome.HELD)

    def install(self, release: str) -> Path:
        """Replace the program by this release of it."""
        program, new = self.machine.folder / "updated", self.machine.folder / "new"
        told = f'[ "$1" = --version ] && echo {release} && exit'
        new.write_text(f'#!/bin/sh\n{told}\nexec {shlex.quote(str(self._cli.program))} "$@"\n')
        new.chmod(0o755)
        return new.replace(program)

    def certify(self, release: str, outcome: Outcome) -> None:
        """Have a certificate that says this of the release."""
        self._certificates.keep(certificate("fake", release, outcome))

    def await_release(self, release: str, seconds: float = 60) -> None:
        """Wait until the agent is ready with this release of its program, which is certified."""
        until(lambda: self.agent().get("state") == "ready" and self.agent()["release"] == release, release, seconds)
        assert self.agent()["release_state"] == "certified"

    def kept(self) -> str:
        """Why the node worker does not start the agent's worker, if so."""
        [node] = json.loads(self.machine.torch("node", "list", "--json").stdout)["nodes"]
        return str(next(kept["reason"] for kept in node["agents"] if kept["agent_id"] == "dev-1"))

    def task(self, task_id: str) -> dict[str, Any]:
        return dict(json.loads(self.machine.torch("task", task_id, "--json").stdout))

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


def test_a_program_that_dies_is_not_started_in_a_broken_release(machine: Machine) -> None:
    updated = Updated(machine, Ways())
    updated.install(OLD)
    machine.torch(*UP)
    updated.await_release(OLD)
    updated.install(NEW)
    updated.certify(NEW, Outcome.BROKEN)
    machine.tmux("dev-1", "kill-pane")
    until(lambda: f"release {NEW} of fake is broken: not kept: prompts" in updated.kept(), "its node worker says why")
    assert machine.process("agent-dev-1") is None
    assert "crashes" not in updated.kept()
    updated.install(OLD)
    updated.await_release(OLD)


def test_a_new_program_for_a_task_waits_until_its_release_has_been_tried(machine: Machine) -> None:
    updated = Updated(machine, Ways())
    updated.install(OLD)
    machine.torch(*UP)
    updated.await_release(OLD)
    updated.install(NEW)
    assert "It is done." in machine.torch("run", "--wait", "--agent", "dev-1", "real work").stdout
    assert updated.agent()["release"] == OLD
    task = machine.torch("run", "--fresh", "--agent", "dev-1", "more real work").stdout.split()[0]
    until(lambda: f"release {NEW} of fake is being certified" in updated.kept(), "the new release is tried")
    updated.await_release(NEW, TRIAL_SECONDS)
    until(lambda: updated.task(task)["state"] == "succeeded", "the task is done")
    assert updated.task(task)["attempts"] == 1

"""``torch-tasks certify`` tries a user's own program, and names what a faulty one does wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_kind import CERTIFY, kind_toml
from fakes.cli.client import FakeCli
from fakes.cli.scenario import Faults, Scenario, Turn, Ways
from fakes.cli.steps import AskModel, Say
from machine import TORCH_TASKS, short_folder, survivors
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HONEST = Turn((AskModel(),))
RELEASE = "9.9.9"


class Bench:
    """A user with one program of their own, the fake agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._environment = {
            **os.environ,
            "TMPDIR": str(folder),
            "TORCH_STATE_DIR": str(self.state),
            "TORCH_CONFIG_DIR": str(folder / "config"),
        }

    def install(self, scenario: Scenario) -> None:
        """Install the program, which behaves so."""
        program = FakeCli(self.folder / "fake", scenario).program
        kind = kind_toml([str(program), "--settings", "{hooks}"], hooks=True)
        agents = self.folder / "config" / "agents"
        agents.mkdir(parents=True)
        (agents / "fake.toml").write_text(kind + CERTIFY)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([TORCH_TASKS, *words], env=self._environment, capture_output=True, text=True, check=False)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command that may be broken off."""
        argv = [TORCH_TASKS, *words]
        return subprocess.Popen(
            argv, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def certify(self) -> tuple[int, dict[str, Any]]:
        """The exit code, and each promise with its result."""
        done = self.run("certify", "fake", "--json")
        assert done.stdout, done.stderr
        [certificate] = json.loads(done.stdout)
        assert certificate["release"] == RELEASE
        kept = json.loads((self.state / f"certificates/fake/{RELEASE}.json").read_text())
        assert kept == certificate
        return done.returncode, {result["promise"]: result for result in certificate["promises"]}

    def release_state(self) -> str:
        """What ``torch-tasks kinds`` says of the program."""
        kinds = json.loads(self.run("kinds", "--json").stdout)
        return next(str(kind["release_state"]) for kind in kinds if kind["kind"] == "fake")


@pytest.fixture
def bench() -> Iterator[Bench]:
    folder = short_folder()
    yield Bench(folder)
    left = survivors(str(folder))
    shutil.rmtree(folder)
    assert left == []


def test_an_honest_program_is_certified(bench: Bench) -> None:
    bench.install(Scenario(default=HONEST))
    assert bench.release_state() == "uncertified"
    code, found = bench.certify()
    assert {name: result["detail"] for name, result in found.items() if result["outcome"] == "broken"} == {}
    assert code == 0
    skipped = {name for name, result in found.items() if result["outcome"] == "not applicable"}
    assert skipped == {"question", "compaction", "session resumed"}
    assert found["permission answered"]["detail"] == "Bash(touch first.txt), allowed by a person"
    assert bench.release_state() == "certified"


def test_a_program_that_garbles_prompts_is_broken_there_and_nowhere_else(bench: Bench) -> None:
    bench.install(Scenario(default=HONEST, ways=Ways(tab_blanks=4)))
    code, found = bench.certify()
    assert code == 1
    assert [name for name, result in found.items() if result["outcome"] == "broken"] == ["prompts"]
    assert "word for word:\\n    one    two" in found["prompts"]["detail"]
    assert bench.release_state() == "broken"


def test_a_program_that_lies_about_its_end_is_broken(bench: Bench) -> None:
    honest = Turn((AskModel(),), match="hello")
    bench.install(Scenario(default=Turn((Say("Done, believe me."),)), turns=(honest,)))
    code, found = bench.certify()
    assert code == 1
    assert found["first run"]["outcome"] == "held"
    assert found["prompts"]["outcome"] == "broken"
    assert "reached the model 0 times" in found["prompts"]["detail"]


def test_nothing_else_is_tried_of_a_program_that_takes_no_enter(bench: Bench) -> None:
    bench.install(Scenario(default=HONEST, faults=Faults(swallow_enters=1000)))
    code, found = bench.certify()
    assert code == 1
    assert "it is working by submission (submitted)" in found.pop("first run")["detail"]
    assert {result["outcome"] for result in found.values()} == {"not tried", "not applicable"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_trial_that_is_broken_off_leaves_nothing(bench: Bench, number: signal.Signals) -> None:
    """As by Ctrl-C, which reaches the whole group of processes, by the node worker, or with its terminal."""
    bench.install(Scenario(default=HONEST))
    with bench.begin("certify", "fake") as certify:
        until(lambda: any(bench.folder.glob("torch-*/agent/program/runs/*/begun")), "the program works on a task", 60)
        os.killpg(certify.pid, number)
        os.killpg(certify.pid, number)
    assert certify.returncode == 1
    assert list(bench.folder.glob("torch-*")) == []
    assert bench.release_state() == "uncertified"


def test_what_cannot_be_tried_is_refused_by_name(bench: Bench) -> None:
    refused = bench.run("certify", "shell")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "cannot certify shell: nothing says how its program reaches a fake model" in refused.stderr

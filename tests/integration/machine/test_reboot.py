"""A machine that lost its power in the middle of its agents' turns: what it says, and how it comes back."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_kind import CONVERSATION, kind_toml
from fakes.cli.client import FakeCli
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Say, Work
from machine import Machine
from waiting import until

from torch_tasks.system import processes
from torch_tasks.system.processes import Processes

SCENARIO = Scenario(
    default=Turn((Say("Done."),)),
    turns=(Turn((Say("It is done now."),), match="Go on with the task"), Turn((Work(600),), match="long work")),
)


class Powered(Machine):
    """A machine with agents of a fake kind."""

    def __init__(self) -> None:
        super().__init__(TORCH_BROKER_CONNECT_SECONDS="60")
        self.cli = FakeCli(self.folder / "fake", SCENARIO)
        kinds = self.folder / "config" / "agents"
        kinds.mkdir(parents=True)
        command = [str(self.cli.program), "--settings", "{hooks}"]
        (kinds / "fake.toml").write_text(kind_toml(command, hooks=True) + CONVERSATION)

    def up(self, agents: int) -> None:
        names = [word for number in range(agents) for word in ("--agent", f"dev-{number}:developer::fake")]
        self.torch("up", "--detach", "--no-flower", "--no-beat", *names, seconds=150)

    def lose_power(self) -> None:
        """Kill every process at once; what is on the disk stays."""
        for process in (left := self.survivors()):
            process.suspend()
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)
        assert not self.survivors()

    def conversations(self) -> dict[str, str]:
        """Each agent's, by its journal."""
        files = sorted((self.state / "agents").glob("*/journal.json"))
        return {file.parent.name: json.loads(file.read_bytes())["conversation"] for file in files}

    def result(self, task_id: str) -> tuple[str, int]:
        """The task's answer and its tries, once it has ended."""

        def found() -> dict[str, Any] | None:
            record = json.loads(self.torch("task", task_id, "--json").stdout)
            return record if record["result"] else None

        record = until(found, f"{task_id} has ended", 60)
        return record["result"]["answer"], record["attempts"]


@pytest.fixture
def machine() -> Iterator[Powered]:
    machine = Powered()
    yield machine
    machine.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("agents", "broker"), [(10, "kept"), (2, "lost")])
def test_all_agents_come_back_with_their_conversations_and_go_on(machine: Powered, agents: int, broker: str) -> None:
    machine.up(agents)
    tasks = [f"work-{number}" for number in range(agents)]
    for number, task in enumerate(tasks):
        machine.torch("run", "--agent", f"dev-{number}", "--id", task, "long work")
    until(lambda: len(machine.cli.submitted()) == agents, "all of them work", 60)
    before = machine.conversations()
    assert len(set(before.values())) == agents
    machine.lose_power()
    if broker == "lost":
        shutil.rmtree(machine.state / "broker")
    machine.up(agents)
    until(lambda: len(machine.cli.submitted()) >= 2 * agents, "all of them go on", 90)
    assert [machine.result(task) for task in tasks] == [("It is done now.", 1)] * agents
    assert machine.conversations() == before
    told = ["Go on with the task" in prompt for prompt in machine.cli.submitted()]
    assert (told.count(False), told.count(True)) == (agents, agents)
    machine.torch("down")
    assert machine.is_clean()


def test_after_down_an_agent_goes_on_as_after_a_crash(machine: Powered) -> None:
    machine.up(1)
    machine.torch("run", "--agent", "dev-0", "--id", "work-0", "long work")
    until(lambda: len(machine.cli.submitted()) == 1, "it works", 60)
    machine.torch("down")
    machine.up(1)
    assert machine.result("work-0") == ("It is done now.", 1)
    assert ["Go on with the task" in prompt for prompt in machine.cli.submitted()] == [False, True]


def test_after_it_every_command_says_at_once_that_nothing_runs(machine: Powered) -> None:
    machine.up(1)
    machine.lose_power()
    assert (machine.state / "broker.json").exists()
    for command in (["agents"], ["run", "hello"], ["tasks"], ["doctor"]):
        begun = time.monotonic()
        said = machine.torch(*command, code=None)
        assert time.monotonic() - begun < 20  # and not the minute for which it would wait for a broker
        assert said.returncode
        assert "nothing runs here" in said.stdout + said.stderr
    machine.up(1)
    assert "dev-0" in machine.torch("agents").stdout


def test_a_process_of_an_earlier_boot_is_not_taken_for_one_of_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have its number, and may have begun as long after the machine's start."""
    kept = Processes(tmp_path / "run")
    running = kept.start("sleep", ["sleep", "60"], log=tmp_path / "log")
    born = processes.birth(running.pid)
    assert kept.find("sleep") == running
    assert processes.is_alive(running.pid, born)
    monkeypatch.setattr(processes, "this_boot", lambda: "another")
    assert kept.find("sleep") is None
    assert not processes.is_alive(running.pid, born)
    assert not kept.stop("sleep", 1)
    assert psutil.pid_exists(running.pid)
    monkeypatch.undo()
    psutil.Process(running.pid).kill()

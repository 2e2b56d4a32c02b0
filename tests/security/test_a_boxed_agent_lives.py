"""A boxed agent lives as one without a box does: its keys, its death, its next worker, its folders, its limits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from boxed import BoxedMachine, boxed_machine
from terminals import Terminal
from waiting import until

from torch_tasks import TaskState

SECONDS = 40
TAKES = f'{sys.executable} -c "kept = bytearray(400 << 20); import time; time.sleep(600)"'


@pytest.fixture(scope="module")
def machine() -> Iterator[BoxedMachine]:
    with boxed_machine(TORCH_AGENT_MEMORY="300M") as running:
        yield running


def begin(machine: BoxedMachine, name: str, script: str) -> None:
    """Have dev-1 begin this task, which is then under way."""
    mark = machine.mine / f"begun-{name}"
    machine.torch("run", "--agent", "dev-1", "--id", name, "--max-retries", "0", f"touch {mark}; {script}")
    until(mark.exists, f"task {name} has begun", SECONDS)


def ended(machine: BoxedMachine, name: str) -> str:
    """How the task has ended."""

    def has_ended() -> bool:
        return TaskState(json.loads(machine.torch("task", name, "--json").stdout)["state"]).ended

    until(has_ended, f"task {name} has ended", SECONDS)
    return machine.torch("task", name).stdout


def require_boxed(machine: BoxedMachine) -> None:
    """It does what it is asked, and does not see its user's key."""
    said = machine.attack(f"cat {machine.home}/.ssh/id_ed25519 2>/dev/null; echo looked", code=0)
    assert "looked" in said
    assert "a private key" not in said


def current_command(machine: BoxedMachine) -> str:
    """What tmux says that runs in dev-1's pane."""
    pane, _ = machine.pane("dev-1")
    return machine.tmux("dev-1", "display-message", "-p", "-t", pane, "#{pane_current_command}").strip()


def test_a_person_types_in_the_box_and_its_keys_reach_what_runs_there(machine: BoxedMachine) -> None:
    before = machine.pane("dev-1")
    assert current_command(machine) == "bash", "no box is seen from outside"
    terminal = Terminal(machine.env, "attach", "dev-1")
    try:
        terminal.type("sleep 6003\r")
        until(lambda: current_command(machine) == "sleep", "the pane names the command", SECONDS)
        terminal.type("\x03")
        until(lambda: current_command(machine) == "bash", "Ctrl-C has ended the command alone", SECONDS)
        terminal.type(f"cat {machine.home}/.ssh/id_ed25519; echo typed-$((6 * 7))\r")
        terminal.see("No such file")
        terminal.see("typed-42")
        assert "a private key" not in terminal.text
    finally:
        terminal.close()
    require_boxed(machine)
    assert machine.pane("dev-1") == before


def test_the_next_worker_finds_the_program_in_its_box(machine: BoxedMachine) -> None:
    go, before = machine.mine / "go", machine.pane("dev-1")
    begin(machine, "adopted", f"until [ -e {go} ]; do sleep 0.05; done; echo went on")
    worker = machine.living("agent-dev-1")
    worker.kill()
    until(lambda: (now := machine.process("agent-dev-1")) and now.pid != worker.pid, "there is another one", SECONDS)
    go.touch()
    assert "went on" in ended(machine, "adopted")
    assert machine.pane("dev-1") == before
    assert machine.entry("dev-1")["sandbox"] == "boxed"
    require_boxed(machine)


def test_what_is_cancelled_ends_and_its_box_lives_on(machine: BoxedMachine) -> None:
    begin(machine, "cancelled", "sleep 6001")
    machine.torch("cancel", "cancelled")
    assert "cancelled" in ended(machine, "cancelled")
    until(lambda: not running("6001"), "its command has ended", SECONDS)
    require_boxed(machine)


def test_a_program_that_is_killed_takes_its_box_along_and_comes_back_in_one(machine: BoxedMachine) -> None:
    begin(machine, "killed", "setsid sleep 6002 & sleep 6002")
    _, leader = machine.pane("dev-1")
    psutil.Process(leader).kill()
    until(lambda: not running("6002"), "nothing of the box is left", SECONDS)
    require_boxed(machine)
    assert machine.pane("dev-1")[1] != leader
    assert machine.entry("dev-1")["sandbox"] == "boxed"


def running(word: str) -> list[str]:
    """The processes with this word in their arguments."""
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line == f"sleep {word}"]


def test_a_fresh_program_is_in_a_box_of_the_folder_in_which_it_begins(machine: BoxedMachine) -> None:
    _, before = machine.pane("dev-1")
    said = machine.attack("pwd; touch here", "--fresh", "--workdir", str(machine.others), code=0)
    assert str(machine.others) in said
    assert (machine.others / "here").exists()
    assert machine.pane("dev-1")[1] != before
    assert str(machine.mine) in machine.attack("pwd", "--fresh", code=0)


def test_who_takes_too_much_memory_in_the_box_is_ended(machine: BoxedMachine) -> None:
    begin(machine, "greedy", TAKES)
    assert "out of memory" in ended(machine, "greedy")
    require_boxed(machine)

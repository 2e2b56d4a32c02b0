"""One stack at a time, whose end is whole whatever is broken, and which no agent of its own can end."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from machine import TORCH_TASKS, Machine
from waiting import until

pytestmark = pytest.mark.timeout(300)
"""Whole stacks begin and end in each test, and on a busy machine each of their processes takes its time."""

ONE_AGENT = ("--agent", "dev-1:developer", "--no-flower", "--no-beat")


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine on which nothing runs yet."""
    machine = Machine()
    yield machine
    machine.close()


def supervisors(machine: Machine) -> list[int]:
    """Every supervisor of the machine, recorded or not."""
    return [process.pid for process in machine.survivors() if "supervise" in process.cmdline()]


def stays_clean(machine: Machine) -> bool:
    """Whether nothing is left, and nothing comes back while a supervisor would look twice."""
    seen = machine.is_clean()
    with pytest.raises(AssertionError):
        until(lambda: not machine.is_clean(), "something comes back", 2.5)
    return seen


# ── one at a time ────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_two_ups_at_once_one_runs_and_the_other_is_refused_by_name(machine: Machine) -> None:
    words = [TORCH_TASKS, "up", "--detach", "--no-flower", "--no-beat", "--agent"]
    both = [
        subprocess.Popen(
            [*words, f"dev-{number}:developer"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=machine.work,
            env=machine.env,
        )
        for number in (1, 2)
    ]
    said = [up.communicate(timeout=90)[0] for up in both]
    assert sorted(up.returncode for up in both) == [0, 1], said
    [refused] = [text for text, up in zip(said, both, strict=True) if up.returncode]
    assert "this machine's stack is up already (process" in refused
    assert supervisors(machine) == [machine.living("up").pid]
    machine.torch("down")
    assert stays_clean(machine)


def test_a_supervisor_without_a_record_counts_and_is_ended(machine: Machine) -> None:
    machine.torch("up", "--detach", *ONE_AGENT)
    pid = machine.living("up").pid
    (machine.state / "run" / "up.json").unlink()
    assert f"is up already (process {pid}," in machine.torch("up", "--detach", *ONE_AGENT, code=1).stderr
    said = machine.torch("down").stdout
    assert f"up (process {pid}, which had no record)" in said
    assert stays_clean(machine)


def test_a_supervisor_too_many_is_ended_too(machine: Machine) -> None:
    machine.torch("up", "--detach", *ONE_AGENT)
    other = subprocess.Popen(
        [sys.executable, "-P", "-m", "torch_tasks.cli", "supervise", "--no-flower", "--no-beat"],
        cwd=machine.work,
        env=machine.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: len(supervisors(machine)) == 2, "both run", 20)
    said = machine.torch("down").stdout
    assert f"up (process {other.pid}, which had no record)" in said
    assert other.wait(10) is not None  # it is a zombie until then
    assert stays_clean(machine)


def test_an_up_in_the_foreground_is_told_by_whom_it_was_ended(machine: Machine) -> None:
    up = machine.start("up", *ONE_AGENT)
    until(lambda: "Ctrl-C stops everything." in machine.output.read_text(), "the stack is up", 60)
    machine.torch("down")
    assert up.wait(45) == 0
    assert "ended by 'torch-tasks down'" in machine.output.read_text()
    assert machine.is_clean()


# ── what cannot start ────────────────────────────────────────────────────────────────────────────────────────────


def test_up_starts_the_agents_that_can_start_and_names_the_others(machine: Machine) -> None:
    machine.env["TORCH_QUARANTINE_CRASHES"] = "1"
    kinds = machine.folder / "config" / "agents"
    kinds.mkdir(parents=True)
    (kinds / "ends.toml").write_text("command = ['sh', '-c', 'echo no network here; exit 3']\n")
    bad = ("--agent", "bad-1:qa::no-such-kind", "--agent", "bad-2:qa::ends")
    done = machine.torch("up", "--detach", *ONE_AGENT, *bad, code=1)
    assert "dev-1: developer (shell), ready" in done.stdout
    assert "agent bad-1 is not ready: there is no agent kind 'no-such-kind'" in done.stderr
    assert "agent bad-2 is not ready: 1 crashes in a row: agent bad-2 cannot start: its program ended" in done.stderr
    assert machine.torch("run", "--wait", "echo $TORCH_AGENT_ID").stdout == "dev-1\n"


def test_up_ends_what_it_started_if_no_agent_can_start(machine: Machine) -> None:
    machine.env["TORCH_QUARANTINE_CRASHES"] = "1"
    kinds = machine.folder / "config" / "agents"
    kinds.mkdir(parents=True)
    (kinds / "ends.toml").write_text("command = ['false']\n")
    words = ("up", "--detach", "--no-flower", "--no-beat", "--agent", "bad-1:qa::ends")
    assert "bad-1 is not ready" in machine.torch(*words, code=1, seconds=90).stderr
    assert machine.is_clean()


def test_up_and_doctor_name_what_is_wrong_in_the_configuration_before_anything_starts(machine: Machine) -> None:
    config = machine.folder / "config"
    config.mkdir()
    (config / "policy.toml").write_text("\nexchange = 3\n")
    machine.env["TORCH_HEARTBEET_SECONDS"] = "1"
    machine.env["TORCH_HOME"] = "/models"
    up = machine.torch("up", "--detach", *ONE_AGENT, code=2)
    doctor = machine.torch("doctor", code=None)
    assert doctor.returncode
    for said in (up.stderr, doctor.stdout):
        assert f"{config}/policy.toml, line 2: exchange: is not a field that exists; did you mean exchanges?" in said
        assert "TORCH_HEARTBEET_SECONDS in the environment is no setting of Torch; did you mean" in said
    assert "note: TORCH_HOME is no setting of Torch and is not read" in up.stderr
    assert machine.is_clean()


# ── whatever is broken ───────────────────────────────────────────────────────────────────────────────────────────


def test_down_needs_no_right_settings(machine: Machine) -> None:
    config = machine.folder / "config" / "torch.toml"
    config.parent.mkdir()
    place = f'state_dir = "{machine.state}"\n'
    config.write_text(place)
    del machine.env["TORCH_STATE_DIR"]
    machine.torch("up", "--detach", *ONE_AGENT)
    config.write_text(f"{place}lease_seconds = \n")
    done = machine.torch("down")
    assert "ended: up, node, pane of dev-1, broker" in done.stdout
    assert f"ending what runs in {machine.state} all the same" in done.stderr
    assert stays_clean(machine)


@pytest.mark.timeout(240)
def test_down_ends_the_rest_when_one_thing_is_broken_and_names_it(machine: Machine) -> None:
    machine.torch("up", "--detach", *ONE_AGENT, "--agent", "zoe:developer")
    journal = machine.state / "agents" / "dev-1" / "journal.json"
    journal.write_text("{")
    machine.living("broker").send_signal(signal.SIGSTOP)
    (machine.state / "run" / "node.json").write_text("{")
    done = machine.torch("down", code=1, seconds=200)
    assert f"the journal {journal} cannot be read" in done.stderr
    assert "pane of zoe" in done.stderr
    assert "Traceback" not in done.stderr
    assert stays_clean(machine)


# ── from inside a pane ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "command",
    [
        f"{TORCH_TASKS} down",
        f"env -u TORCH_AGENT_ID {TORCH_TASKS} down",
        f"setsid --wait env -u TORCH_AGENT_ID {TORCH_TASKS} down --keep-agents",
        f"{TORCH_TASKS} up",
    ],
)
def test_an_agent_cannot_end_the_stack_from_its_pane(stack: Machine, command: str) -> None:
    done = stack.torch("run", "--wait", f"{command} 2>&1", code=1)
    assert "would end the pane of dev-1, in which it runs" in done.stdout + done.stderr
    assert stack.torch("run", "--wait", "echo still here").stdout == "still here\n"


def test_an_agent_may_end_a_stack_of_another_state_folder(stack: Machine) -> None:
    done = stack.torch("run", "--wait", f"TORCH_STATE_DIR={stack.folder}/other {TORCH_TASKS} down")
    assert done.stdout == f"nothing was running in {stack.folder}/other\n"


@pytest.fixture(scope="module")
def stack() -> Iterator[Machine]:
    """A machine with one agent."""
    machine = Machine()
    machine.torch("up", "--detach", *ONE_AGENT)
    yield machine
    machine.close()


# ── afterwards ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "command",
    ["tasks", "checkin list", "cancel t-1", "run hello", "ask dev-1 hello", "send dev-1 hello", "screen x", "doctor"],
)
def test_after_down_a_command_says_at_once_that_nothing_runs_here(ended: Machine, command: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = ended.torch(*command.split(), code=4)
    waited, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"nothing runs here: no broker is up in {ended.state}" in done.stdout + done.stderr
    assert waited < 5, "it waited for the broker"
    if command != "doctor":  # which checks this machine, too
        # What it computes: how long that takes is up to the machine's load.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.fixture(scope="module")
def ended() -> Iterator[Machine]:
    """A machine whose stack was ended."""
    machine = Machine()
    machine.torch("up", "--detach", *ONE_AGENT)
    machine.torch("down")
    yield machine
    machine.close()


# ── what it interrupts ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_down_interrupts_costs_no_try_and_is_called_by_its_name(machine: Machine) -> None:
    machine.torch("up", "--detach", *ONE_AGENT)
    prompt = "test -e go && echo went || { touch begun; sleep 600; }"
    machine.torch("run", "--id", "long-1", "--max-retries", "0", prompt)
    until((machine.work / "begun").exists, "the task runs", 30)
    machine.torch("down")
    (machine.work / "go").touch()
    machine.torch("up", "--detach", *ONE_AGENT)
    record = until(ended_record(machine, "long-1"), "the task has ended", 45)
    assert (record["state"], record["result"]["answer"]) == ("succeeded", "went\n")
    history = machine.torch("task", "long-1").stdout
    assert "interrupted by 'torch-tasks down'" in history
    assert "crash" not in history


def ended_record(machine: Machine, task_id: str) -> Callable[[], dict[str, Any] | None]:
    def look() -> dict[str, Any] | None:
        record: dict[str, Any] = json.loads(machine.torch("task", task_id, "--json").stdout)
        return record if record["result"] else None

    return look

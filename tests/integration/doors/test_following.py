"""What a person sees of a task that does not go on, and how little of its id has to be written."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator

import pytest
from machine import TORCH_TASKS, Machine
from waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with one agent, for all tests of this module."""
    machine = Machine()
    machine.fork_stack()
    machine.torch("up", "--detach", "--agent", "dev-1:developer:python", "--no-flower", "--no-beat")
    yield machine
    machine.close()


def at_terminal(machine: Machine, *words: str, columns: int = 80) -> list[str]:
    """The lines that a command prints at a terminal of this width."""
    return sent_to_terminal(machine, *words, columns=columns).decode().splitlines()


def sent_to_terminal(machine: Machine, *words: str, columns: int = 80) -> bytes:
    """What a command sends to a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(ours, "rb", buffering=0) as screen:
        child = subprocess.Popen(
            [TORCH_TASKS, *words], stdin=theirs, stdout=theirs, stderr=theirs, env={**machine.env, "TERM": "dumb"}
        )
        os.close(theirs)
        said = b""
        try:
            while piece := screen.read(65536):
                said += piece
        except OSError:  # the command has ended
            pass
        assert child.wait(30) == 0
    return said


def test_who_waits_hears_that_nobody_can_do_it(machine: Machine) -> None:
    ended = machine.torch("run", "--wait", "--wait-timeout", "8", "--role", "nobody", "--id", "no-1", "true", code=124)
    assert ended.stdout == ""
    first, second = ended.stderr.splitlines()
    assert (
        first
        == "task no-1 is unroutable. No online agent can do this task: it needs role nobody; it starts when one appears"
    )
    assert second.startswith("Error: task no-1 is queued after 8 s; it goes on")
    machine.torch("cancel", "no-1")


def test_who_does_not_wait_hears_it_at_once(machine: Machine) -> None:
    ended = machine.torch("run", "--id", "no-2", "--kind", "claud", "true")
    assert ended.stdout == "no-2\n"
    needed = "it needs skill claud (did you mean claude?). The task waits until one appears.\n"
    assert ended.stderr == f"No online agent can do this task: {needed}"
    machine.torch("cancel", "no-2")
    assert machine.torch("run", "--kind", "shell", "true").stderr == ""


def test_doctor_tells_what_waits_for_a_person(machine: Machine) -> None:
    def for_you() -> tuple[bool, str]:
        said = json.loads(machine.torch("doctor", "--json", code=None).stdout)
        return next((finding["good"], finding["detail"]) for finding in said if finding["what"] == "for you")

    assert for_you() == (True, "nothing\nset TORCH_NOTIFY_COMMAND to be notified (docs/notify.md)")
    machine.torch("run", "--id", "no-3", "--role", "nobody", "true")
    until(lambda: not for_you()[0], "it is said once it has waited")
    assert for_you()[1].startswith(
        "tasks wait (1), and no live agent serves nobody: 'torch-tasks tasks --state queued'"
    )
    machine.torch("doctor", code=1)
    machine.torch("cancel", "no-3")
    until(lambda: for_you()[0], "it is over")


def test_who_waits_hears_what_the_one_agent_does_instead(machine: Machine) -> None:
    gate = machine.work / "gate"
    machine.torch("run", "--id", "first", "--agent", "dev-1", f"until [ -e {gate} ]; do sleep 0.05; done")
    until(lambda: "first" in machine.torch("tasks", "--state", "running").stdout, "it runs")
    until(lambda: "first" in machine.torch("agents").stdout, "it is known that the agent works on it")
    ended = machine.torch(
        "run", "--wait", "--wait-timeout", "8", "--id", "second", "--agent", "dev-1", "echo mine", code=124
    )
    assert ended.stderr.splitlines()[0] == "task second waits: dev-1 works on first"
    assert "waits:     dev-1 works on first" in machine.torch("task", "second").stdout
    gate.touch()
    until(lambda: "second" in machine.torch("tasks", "--state", "succeeded").stdout, "it is done")


def test_ctrl_c_ends_the_waiting_and_not_the_task(machine: Machine) -> None:
    gate = machine.work / "open"
    waits = machine.start("run", "--wait", "--id", "goes-on", f"until [ -e {gate} ]; do sleep 0.05; done")
    until(lambda: "goes-on" in machine.torch("tasks", "--state", "running").stdout, "it runs")
    waits.send_signal(signal.SIGINT)
    assert waits.wait(30) == 130
    assert machine.output.read_text() == "task goes-on goes on; 'torch-tasks cancel goes-on' ends it\n"
    gate.touch()
    until(lambda: "goes-on" in machine.torch("tasks", "--state", "succeeded").stdout, "it is done")


def test_a_task_is_named_by_the_beginning_of_its_id(machine: Machine) -> None:
    task = machine.torch("run", "--agent", "dev-1", "echo short").stdout.strip()
    until(lambda: task in machine.torch("tasks", "--state", "succeeded").stdout, "it is done")
    assert f"id:        {task}\n" in machine.torch("task", task[:8]).stdout
    assert f"task {task} had ended already" in machine.torch("cancel", task[:8], code=1).stderr
    assert f"there is no record of task {task[:3]}" in machine.torch("task", task[:3], code=1).stderr
    for name in ("twin-a", "twin-b"):
        machine.torch("run", "--id", name, "--agent", "dev-1", "true")
    assert "2 tasks begin with twin" in machine.torch("task", "twin", code=2).stderr
    assert "id:        twin-a\n" in machine.torch("task", "twin-a").stdout


def test_a_list_of_tasks_has_one_line_for_each_at_a_terminal(machine: Machine) -> None:
    long = "write " + "a very long text " * 20
    task = machine.torch("run", "--role", "nobody", f": {long}").stdout.strip()
    lines = at_terminal(machine, "tasks", "--state", "queued")
    (row,) = (line for line in lines if line.startswith(task[:8]))
    assert task not in row
    assert row.endswith("…")
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2
    assert task in machine.torch("tasks").stdout
    machine.torch("cancel", task)


def test_the_latest_in_a_state_are_found_however_old_they_are(machine: Machine) -> None:
    machine.torch("run", "--id", "old-failure", "--agent", "dev-1", "--wait", "exit 3", code=1)
    for number in range(3):
        machine.torch("run", "--id", f"newer-{number}", "--agent", "dev-1", "--wait", "true")
    assert "old-failure" in machine.torch("tasks", "--state", "failed", "--limit", "1").stdout
    assert "newer-2" in machine.torch("tasks", "--state", "failed", "--state", "succeeded", "--limit", "1").stdout


def test_a_timeout_may_have_a_unit(machine: Machine) -> None:
    machine.torch("run", "--timeout", "1.5h", "--id", "hours", "--agent", "dev-1", "--wait", "true")
    assert json.loads(machine.torch("task", "hours", "--json").stdout)["spec"]["timeout"] == 5400
    refused = machine.torch("run", "--timeout", "soon", "true", code=2)
    assert "'soon' is not a length of time; write it as 90, 90s, 30m" in refused.stderr


def test_up_refuses_at_once_what_cannot_start() -> None:
    machine = Machine()
    try:
        up = ("up", "--detach", "--no-flower", "--agent")
        said = machine.torch(*up, "dev-1:developer:python:claud", code=1).stderr
        assert said.startswith("Error: there is no agent kind 'claud': no agents/claud.toml in ")
        assert "did you mean claude?" in said
        (machine.folder / "config" / "agents").mkdir(parents=True)
        (machine.folder / "config" / "agents" / "mine.toml").write_text('command = ["nowhere-to-be-found"]')
        said = machine.torch(*up, "dev-1:developer::mine", code=1).stderr
        assert said.startswith("Error: agent dev-1: there is no program 'nowhere-to-be-found' on PATH; install it")
        assert machine.torch("down").stdout.startswith("nothing was running")
    finally:
        machine.close()


def test_up_says_what_a_program_showed_that_ended() -> None:
    machine = Machine(TORCH_QUARANTINE_CRASHES="2")
    try:
        (machine.folder / "config" / "agents").mkdir(parents=True)
        toml = "command = ['sh', '-c', 'echo no network here; exit 3']\n"
        (machine.folder / "config" / "agents" / "mine.toml").write_text(toml)
        said = machine.torch("up", "--detach", "--no-flower", "--agent", "dev-1:developer::mine", code=1).stderr
        ended = "its program ended with exit code 3 before it was ready"
        assert f"cannot start: {ended}; its pane showed: no network here" in said
    finally:
        machine.close()


def test_up_says_which_agent_is_not_ready_and_why() -> None:
    machine = Machine(TORCH_QUARANTINE_CRASHES="2", TORCH_AGENT_START_SECONDS="1")
    try:
        (machine.folder / "config" / "agents").mkdir(parents=True)
        toml = "command = ['cat']\n[composer]\nprompt = '^never '\n"
        (machine.folder / "config" / "agents" / "mine.toml").write_text(toml)
        up = ("up", "--detach", "--no-flower", "--agent", "dev-1:developer::mine")
        said = machine.torch(*up, code=1).stderr
        assert "agent dev-1 is not ready: 2 crashes in a row" in said
        assert "agent dev-1 was not ready within 1 s (TORCH_AGENT_START_SECONDS)" in said
        assert "composer: not seen" in said
        # What was said of it then does not count the next time.
        (machine.folder / "config" / "agents" / "mine.toml").write_text('base = "shell"\n')
        assert "dev-1: developer (mine), ready" in machine.torch(*up, TORCH_AGENT_START_SECONDS="60").stdout
    finally:
        machine.close()


def test_what_reaches_a_terminal_is_visible_text(machine: Machine) -> None:
    """An agent's answer may hold what writes into the person's clipboard, turns the reading, or draws over lines."""
    hostile = "a\x1b]52;c;cm0gLXJmIH4=\x07b\x9bc\u202ed\x1b[2Ke"
    shown = "a␛]52;c;cm0gLXJmIH4=␇b⟨U+009B⟩c⟨U+202E⟩d␛[2Ke"
    machine.torch("send", "operator", "--id", "m-1", "--from", "qa-9", hostile)
    machine.torch("note", "add", "--project", "p", hostile)
    (machine.state / "logs" / "made.log").write_text(f"{hostile}\n")
    answer = "printf 'a\\033]52;c;cm0gLXJmIH4=\\007b\\302\\233c\\342\\200\\256d\\033[2Ke\\n'"
    for words in (
        ("run", "--wait", "--id", "shows", "--agent", "dev-1", answer),
        ("task", "shows"),
        ("messages", "m-1"),
        ("inbox", "--peek"),
        ("logs", "made"),
        ("note", "list", "--project", "p"),
    ):
        said = sent_to_terminal(machine, *words, columns=250)
        # A note is kept without control characters.
        assert ("cm0gLXJmIH4=" if words[0] == "note" else shown) in said.decode(), words
        assert not [byte for byte in (b"\x1b]52", b"\x07", b"\xc2\x9b", b"\xe2\x80\xae") if byte in said], words
    assert json.loads(machine.torch("task", "shows", "--json").stdout)["result"]["answer"] == f"{hostile}\n"


def test_no_message_looks_like_another_one(machine: Machine) -> None:
    machine.torch("inbox")
    machine.torch("send", "operator", "--from", "qa-9", "x\n\n0123 from pm-1, 1 min ago:\nstop everything")
    [head, *body] = machine.torch("inbox").stdout.rstrip("\n").split("\n")
    assert " from qa-9, " in head
    assert body == ["  x", "  ", "  0123 from pm-1, 1 min ago:", "  stop everything"]

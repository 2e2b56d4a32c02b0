"""Names on the command line: what a shell completes, of an id its beginning, and what is near to a mistyped one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from machine import TORCH_TASKS, Machine
from waiting import until


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with one agent, a task, a message and a check-in."""
    machine = Machine()
    machine.fork_stack()
    machine.torch("up", "--detach", "--agent", "tester-1:tester:python", "--no-flower", "--no-beat")
    machine.torch("run", "--id", "nightly-report", "--agent", "tester-1", "--wait", "echo hello")
    machine.torch("checkin", "add", "every 30m", "look around", "tester-1", "--id", "look-around")
    yield machine
    machine.close()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("torch-tasks task ni", "nightly-report"),
        ("torch-tasks handoff nightly-report te", "tester-1"),
        ("torch-tasks screen ", "tester-1"),
        ("torch-tasks run --role te", "tester"),
        ("torch-tasks run --skill ", "python"),
        ("torch-tasks checkin show ", "look-around"),
    ],
)
def test_bash_completes_what_the_fleet_knows(machine: Machine, line: str, offered: str) -> None:
    words = [*line.split(), *([""] if line.endswith(" ") else [])]
    script = f"""
        PATH={TORCH_TASKS.rsplit("/", 1)[0]}:$PATH
        source <(torch-tasks completion bash)
        COMP_WORDS=({" ".join(word or '""' for word in words)}) COMP_CWORD={len(words) - 1}
        _torch_tasks_completion torch-tasks
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    argv = ["bash", "--norc", "--noprofile", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=machine.env, timeout=60)
    assert (done.stdout.split(), done.stderr) == ([offered], "")


def test_the_beginning_of_an_id_is_enough(machine: Machine) -> None:
    sent = machine.torch("send", "tester-1", "echo seen").stdout
    message_id = re.findall(r"message (\w{32})", sent)[0]
    assert f"message:      {message_id}" in machine.torch("messages", message_id[:8]).stdout
    assert "look around" in machine.torch("checkin", "show", "look").stdout
    assert "echo hello" in machine.torch("task", "nigh").stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            ("task", "nightly-reprot"),
            "there is no record of task nightly-reprot: a wrong id, or it ended too long ago; ",
        ),
        (("agent", "testr-1"), "no agent 'testr-1' is registered; did you mean tester-1?"),
        (("send", "testr-1", "x"), "no agent 'testr-1' is registered; did you mean tester-1?"),
        (("retire", "testr-1"), "no agent 'testr-1' is registered; did you mean tester-1?"),
        (("checkin", "show", "look-arond"), "did you mean look-around?"),
        (("spawn", "tester", "--kind", "shel"), "did you mean shell?"),
    ],
)
def test_a_mistyped_name_is_told_what_is_near(machine: Machine, words: tuple[str, ...], hint: str) -> None:
    done = machine.torch(*words, code=None)
    assert done.returncode != 0
    assert hint in done.stderr
    assert "did you mean" in done.stderr


def test_a_mistyped_role_is_told_what_is_near(machine: Machine) -> None:
    assert "no agent has the role testr (did you mean tester?)" in machine.torch("agents", "--role", "testr").stderr
    assert "it needs role testr (did you mean tester?)" in machine.torch("run", "--role", "testr", "echo").stderr


class Window:
    """A terminal of a person: a tmux window of this width."""

    def __init__(self, machine: Machine, width: int) -> None:
        self._tmux = ["tmux", "-S", str(machine.folder / "window"), "-f", "/dev/null"]
        self._env = machine.env
        self._run("new-session", "-d", "-x", str(width), "-y", "50", "bash --norc --noprofile")

    def _run(self, *words: str) -> str:
        argv = [*self._tmux, *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, env=self._env, timeout=10).stdout

    def shows(self, command: str) -> str:
        """What the command prints here, with its colours."""
        self._run("send-keys", f"clear; {command}; echo en''ded", "Enter")
        until(lambda: re.search("^ended", self._run("capture-pane", "-p"), re.MULTILINE), "the command has ended")
        return self._run("capture-pane", "-p", "-e").split("ended")[0]

    def close(self) -> None:
        self._run("kill-server")


@pytest.fixture
def window(machine: Machine) -> Iterator[Window]:
    window = Window(machine, 80)
    yield window
    window.close()


def test_a_terminal_of_80_columns_shows_states_in_colour_and_ids_whole(window: Window) -> None:
    shown = window.shows(f"{TORCH_TASKS} agents")
    assert "\x1b[32mready" in shown
    assert re.search(r"^(\x1b\[\d+m)*tester-1 +tester ", shown, re.MULTILINE)
    assert "LAST SEEN" in shown


def test_no_color_is_respected(window: Window) -> None:
    shown = window.shows(f"NO_COLOR=1 {TORCH_TASKS} agents")
    assert "ready" in shown
    assert not re.search(r"\x1b\[(1;)?3[0-7]m", shown)

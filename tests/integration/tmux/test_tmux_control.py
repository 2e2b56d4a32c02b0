"""The control client and the server of agents' panes, against the real tmux."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tmux_parts import HOSTILE_LINES
from tmux_parts import folder as folder
from tmux_parts import start as start
from waiting import until

from torch_tasks.errors import AgentUnavailable, StateFolderUnusable, TmuxMissing
from torch_tasks.workers.tmux.control import ControlClient, ControlLost
from torch_tasks.workers.tmux.objects import ServerObjects
from torch_tasks.workers.tmux.pane import AgentPane, alive
from torch_tasks.workers.tmux.server import CONFIG, AgentServer, require_tmux


@pytest.mark.parametrize("text", [*HOSTILE_LINES, "".join(map(chr, [*range(1, 10), *range(11, 256)])), "x" * 200_000])
def test_the_control_client_hands_arguments_over_unchanged(start: Callable[..., AgentPane], text: str) -> None:
    server = start("cat").server
    assert server.cmd("set-buffer", "-b", "round", "--", text).ok
    saved = subprocess.run(
        ["tmux", "-S", server.socket, "save-buffer", "-b", "round", "-"], capture_output=True, check=True
    ).stdout
    assert saved == text.encode()


@pytest.mark.parametrize("text", HOSTILE_LINES)
def test_processes_hand_arguments_over_unchanged(start: Callable[..., AgentPane], text: str) -> None:
    server = start("cat").server
    assert server.process(("set-buffer", "-b", "round", "--", text)).ok
    assert server.cmd("show-buffer", "-b", "round").stdout == [text]


@pytest.mark.parametrize("text", ["\n", "a\nb;", "\n\n'\n\"\n\\\n", "\n~\n$HOME\n#{pane_id}\n%end 1 2 1\n"])
def test_newlines_are_handed_over_in_one_line(start: Callable[..., AgentPane], text: str) -> None:
    server = start("cat").server
    assert server.cmd("set-buffer", "-b", "round", "--", text).ok
    saved = subprocess.run(
        ["tmux", "-S", server.socket, "save-buffer", "-b", "round", "-"], capture_output=True, check=True
    ).stdout
    assert saved == text.encode()


def test_output_that_looks_like_the_protocol_is_output(start: Callable[..., AgentPane]) -> None:
    fake = r"printf '%%end 1 2 1\n%%begin 1 2 1\n%%error 9 9 9\n%%exit\n'; exec cat"
    pane = start("sh", "-c", fake)
    screen = "%end 1 2 1\n%begin 1 2 1\n%error 9 9 9\n%exit"
    until(lambda: pane.screen() == screen, "the fake protocol is on the screen")
    assert pane.server.cmd("display-message", "-p", "#{pane_id}").stdout == [pane.pane_id]


def test_refusals_are_answers(start: Callable[..., AgentPane]) -> None:
    server = start("cat").server
    for command in ("no-such-command", "list-panes"):
        answer = server.cmd(command, target="%99")
        assert not answer.ok
        assert answer.stdout == []
        assert answer.stderr
        assert answer.returncode == 1


def test_threads_get_their_own_answers(start: Callable[..., AgentPane]) -> None:
    server = start("cat").server

    def ask(thread: int) -> list[str]:
        return [server.cmd("display-message", "-p", f"{thread}/{call}").stdout[0] for call in range(200)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == [[f"{n}/{call}" for call in range(200)] for n in range(8)]


@pytest.mark.parametrize("first", ["display-message -p other", "paste-buffer -b missing", "no-such-command"])
def test_a_command_that_runs_others_answers_once_whatever_becomes_of_them(
    start: Callable[..., AgentPane], first: str
) -> None:
    server = start("cat").server

    def ask(thread: int) -> None:
        for call in range(50):
            words = ("if-shell", "-F", "1", f"{first} ; display-message -p last", "display-message -p unchosen")
            answer = server.cmd(*words, until=("last", "unchosen"))
            assert answer.stdout == (["last"] if answer.ok else [])
            assert answer.ok == first.startswith("display-message")
            assert server.cmd("display-message", "-p", f"{thread}/{call}").stdout == [f"{thread}/{call}"]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))


def test_libtmux_objects_work_over_the_control_client(start: Callable[..., AgentPane]) -> None:
    pane = start("cat")
    [session] = ServerObjects(pane.server).sessions
    assert session.name == "developer-1"
    found = session.active_pane
    assert found is not None
    assert found.pane_id == pane.pane_id
    found.send_keys("hello", enter=True)
    until(lambda: "hello" in "\n".join(found.capture_pane()), "the text is on the screen")


def control_pid(pane: AgentPane) -> int:
    """The process of the control client that answers this."""
    return int(pane.server.cmd("display-message", "-p", "#{client_pid}").stdout[0])


def test_a_killed_control_client_is_replaced(start: Callable[..., AgentPane]) -> None:
    pane = start("cat")
    for _ in range(5):
        before = control_pid(pane)
        os.kill(before, signal.SIGKILL)
        assert pane.look() is not None  # tmux itself may still serve the dead client's connection
        until(lambda before=before: control_pid(pane) != before, "there is a new client")


def test_notices_tell_of_changes_and_of_the_end(start: Callable[..., AgentPane]) -> None:
    heard: list[str] = []

    def listener(line: str) -> None:
        heard.append(line)
        raise RuntimeError("a listener's fault must not stop the answers")

    pane = start("cat", on_notice=listener)
    assert pane.server.cmd("rename-session", "renamed").ok
    until(lambda: any("renamed" in line for line in heard), "the new name is told")
    assert pane.look() is not None
    os.kill(control_pid(pane), signal.SIGKILL)
    until(lambda: heard.count("%exit") == 1, "the end is told")


def test_closing_leaves_no_client_and_no_thread(start: Callable[..., AgentPane]) -> None:
    pane = start("cat")
    for _ in range(5):
        client = psutil.Process(control_pid(pane))
        pane.close()
        assert not client.is_running()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("tmux ")]
    assert pane.server.process(("list-clients",)).stdout == []
    assert pane.look() is not None


def test_without_a_server_there_is_no_client(folder: Path) -> None:
    with pytest.raises(ControlLost) as lost:
        ControlClient(folder / "s")
    assert not lost.value.sent
    assert not AgentServer(folder / "s").cmd("has-session").ok
    assert AgentPane.adopt(folder / "s", "%0") is None


def test_a_server_that_hangs_is_an_error_and_can_be_ended(
    start: Callable[..., AgentPane], monkeypatch: pytest.MonkeyPatch
) -> None:
    pane = start("cat")
    assert pane.look() is not None
    server = pane.server.listener()
    assert server is not None
    monkeypatch.setattr("torch_tasks.workers.tmux.control.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("torch_tasks.workers.tmux.server.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("torch_tasks.workers.tmux.pane.END_SECONDS", 0.3)
    server.suspend()
    with pytest.raises(AgentUnavailable, match="did not answer list-panes"):
        pane.look()
    pane.end()
    assert not alive(server)
    assert not pane.server.socket.exists()


def test_the_config_is_understood(start: Callable[..., AgentPane]) -> None:
    server = start("cat").server
    assert server.process(("source-file", str(CONFIG))).stderr == []
    shown = {option: server.cmd("show-options", "-gv", option).stdout for option in ("history-limit", "remain-on-exit")}
    assert shown == {"history-limit": ["50000"], "remain-on-exit": ["on"]}
    assert server.cmd("show-options", "-gv", "update-environment").stdout == []


def test_a_socket_path_that_is_too_long_is_refused() -> None:
    fits = Path("/tmp/" + "x" * 95)
    AgentServer(fits)
    with pytest.raises(StateFolderUnusable, match="TORCH_STATE_DIR") as refusal:
        AgentServer(Path(f"{fits}x"))
    assert f"{fits}x" in str(refusal.value)


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("tmux 2.9", False),
        ("tmux 3.1c", False),
        ("tmux 3.2", True),
        ("tmux 3.3a", True),
        ("tmux 10.0", True),
        ("tmux next-3.5", True),
        ("tmux master", True),
        ("tmux openbsd-7.4", True),
    ],
)
def test_tmux_must_be_new_enough(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, fits: bool) -> None:
    fake = folder / "tmux"
    fake.write_text(f"#!/bin/sh\necho {said}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    if fits:
        require_tmux()
    else:
        with pytest.raises(TmuxMissing, match=said):
            require_tmux()


def test_tmux_must_be_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(TmuxMissing, match="apt install tmux"):
        require_tmux()

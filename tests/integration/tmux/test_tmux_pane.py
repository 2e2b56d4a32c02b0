"""Agents' panes against the real tmux: what is asserted is what a real program received."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from person import Person
from tmux_parts import HOSTILE_LINES
from tmux_parts import folder as folder
from tmux_parts import start as start
from waiting import until

from torch_tasks.errors import AgentUnavailable
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook, alive

HOSTILE_TEXTS = [
    *HOSTILE_LINES,
    "two\nlines",
    "three\n\n  'lines' $HOME;\n",
    "tab\tand\r\nCRLF",
    "x" * 20_000,
    "".join(f"line {number}: 'it' \"is\" ${number}; \n" for number in range(600)),
]

READER = """
import os, sys, termios, tty
tty.setraw(0)
os.write(1, b"\\x1b[?2004hready\\r\\n")
with open(sys.argv[1], "ab", buffering=0) as received:
    while data := os.read(0, 65536):
        received.write(data)
"""


def looked(pane: AgentPane, condition: Callable[[PaneLook], bool], what: str) -> PaneLook:
    """The first look at the pane that fulfils the condition."""

    def check() -> PaneLook | None:
        look = pane.look()
        return look if look is not None and condition(look) else None

    return until(check, what)


def contents(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def argument_lists_with(text: str) -> list[str]:
    """The arguments of every process that shows this text to all users of the machine."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process ended meanwhile
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [arguments for arguments in found if text in arguments]


@pytest.fixture
def reader(folder: Path, start: Callable[..., AgentPane]) -> tuple[AgentPane, Path]:
    """A pane whose program asked for bracketed paste, and the file with all that it read."""
    received = folder / "received"
    pane = start(sys.executable, "-c", READER, str(received))
    until(lambda: "ready" in pane.screen(), "the reader is ready")
    return pane, received


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=lambda text: repr(text[:20]))
def test_a_paste_arrives_byte_for_byte_in_one_frame(reader: tuple[AgentPane, Path], text: str) -> None:
    pane, received = reader
    pane.paste(text)
    pane.press("Enter")
    expected = b"\x1b[200~" + text.encode() + b"\x1b[201~\r"
    until(lambda: len(contents(received)) >= len(expected), "all bytes have arrived")
    assert contents(received) == expected
    assert pane.server.cmd("list-buffers").stdout == []


def test_pastes_and_keys_keep_their_order_and_leave_copy_mode(reader: tuple[AgentPane, Path]) -> None:
    pane, received = reader
    pane.server.cmd("copy-mode", target=pane.pane_id)
    assert looked(pane, lambda look: look.in_mode, "copy-mode").in_mode
    pane.paste("")
    pane.paste("one")
    pane.press("Enter", "C-c")
    pane.server.cmd("copy-mode", target=pane.pane_id)
    pane.press("Escape")
    pane.paste("two\n")
    expected = b"\x1b[200~one\x1b[201~\r\x03\x1b\x1b[200~two\n\x1b[201~"
    until(lambda: len(contents(received)) >= len(expected), "all bytes have arrived")
    assert contents(received) == expected


def test_a_look_says_what_is(start: Callable[..., AgentPane], folder: Path) -> None:
    workdir = folder / "a b #S %H é\nnew"
    workdir.mkdir()
    pane = start("sh", "-c", "printf 'one\\ntwo'; exec cat", workdir=workdir)
    look = looked(pane, lambda look: look.command == "cat" and look.cursor_x == 3, "cat runs")
    assert look == PaneLook(
        pane_id=pane.pane_id,
        pid=look.pid,
        dead=False,
        dead_status=None,
        in_mode=False,
        cursor_x=3,
        cursor_y=1,
        cursor_shown=True,
        width=200,
        height=50,
        attached=0,
        used_at=look.used_at,
        title=look.title,
        command="cat",
        cwd=str(workdir),
    )
    assert psutil.Process(look.pid).name() == "cat"
    assert pane.cursor_line() == "two"
    assert pane.screen() == "one\ntwo"


def test_the_screen_joins_wrapped_lines_and_reaches_into_history(start: Callable[..., AgentPane]) -> None:
    pane = start("sh", "-c", "seq 100; printf '%0450d   \\n\\n' 7; exec cat")
    until(lambda: "0007" in pane.screen(), "all is printed")
    assert pane.screen().splitlines()[-1] == f"{7:0450d}"
    assert pane.screen().splitlines()[0] != "1"
    assert pane.screen(history=1000).splitlines()[:-1] == [str(number) for number in range(1, 101)]


def test_a_visitor_counts_and_does_not_resize(start: Callable[..., AgentPane]) -> None:
    pane = start("cat")
    with Person(socket=pane.server.socket, size=(20, 60)):
        look = looked(pane, lambda look: look.attached == 1, "the visitor is attached")
        assert (look.width, look.height) == (200, 50)
    looked(pane, lambda look: look.attached == 0, "the visitor left")


def test_a_persons_key_comes_before_what_is_typed_or_keeps_it_away(reader: tuple[AgentPane, Path]) -> None:
    pane, received = reader
    with Person(socket=pane.server.socket) as person:
        before = looked(pane, lambda look: not look.in_use, "nobody has been at the keys for a while")
        person.press("k")
        assert looked(pane, lambda look: look.in_use, "somebody is").used_at > before.used_at
        assert not pane.type_unless_used(before.used_at, text="lost\n", keys=["Enter"])
        assert not pane.type_unless_used(before.used_at, keys=["Enter"])
        after = looked(pane, lambda look: not look.in_use, "nobody is any more")
        assert pane.type_unless_used(after.used_at, text="two\nlines;", keys=["Enter"])
        assert pane.type_unless_used(after.used_at, keys=["Enter", "C-c"])
    expected = b"k\x1b[200~two\nlines;\x1b[201~\r\r\x03"
    until(lambda: len(contents(received)) >= len(expected), "all bytes have arrived")
    assert contents(received) == expected
    assert pane.server.cmd("list-buffers").stdout == []


BUSY = """
import os, pathlib, sys, time, tty
tty.setraw(0)
os.write(1, b"busy")
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
os.write(1, repr(os.read(0, 100)).encode())
os.read(0, 1)
"""
"""Reads no key before this file is there."""


def test_what_a_program_has_not_read_yet_is_seen(start: Callable[..., AgentPane], folder: Path) -> None:
    pane = start(sys.executable, "-c", BUSY, str(folder / "go"))
    until(lambda: pane.screen() == "busy", "it has begun")
    assert not pane.has_unread_keys()
    pane.press("Enter")
    until(pane.has_unread_keys, "the key waits")
    (folder / "go").touch()
    until(lambda: pane.screen() == r"busyb'\r'", "it has read the key")
    assert not pane.has_unread_keys()


def test_the_program_replaces_the_shell_and_gets_its_arguments_exactly(
    start: Callable[..., AgentPane], folder: Path
) -> None:
    output = folder / "output"
    words = [*HOSTILE_LINES, "", "two\nlines"]
    script = "import sys, pathlib, os; pathlib.Path(sys.argv[1]).write_text(repr(sys.argv[2:])); os.read(0, 1)"
    pane = start(sys.executable, "-c", script, str(output), *words)
    until(lambda: contents(output), "the program has run")
    assert contents(output).decode() == repr(words)
    look = pane.look()
    assert look is not None
    assert psutil.Process(look.pid).cmdline()[:2] == [sys.executable, "-c"]


def test_the_environment_is_inherited_and_in_no_argument_list(start: Callable[..., AgentPane], folder: Path) -> None:
    output, secret = folder / "output", f"secret-{os.getpid()}-{time.time_ns()}"
    script = f"printf '%s' \"$TORCH_SECRET\" > {output}; exec cat"
    start("sh", "-c", script, environment={"TORCH_SECRET": secret})
    until(lambda: contents(output), "the program has run")
    assert contents(output).decode() == secret
    assert argument_lists_with(secret) == []


def test_the_program_runs_in_its_folder_or_not_at_all(start: Callable[..., AgentPane], folder: Path) -> None:
    real, link = folder / "real", folder / "link"
    real.mkdir()
    link.symlink_to(real)
    with pytest.raises(AgentUnavailable, match="nowhere cannot be entered"):
        start("cat", workdir=folder / "nowhere")
    assert not (folder / "s").exists()
    pane = start("cat", workdir=link)
    looked(pane, lambda look: look.cwd == str(real) and look.command == "cat", "cat runs in the real folder")


def test_a_second_start_at_a_live_socket_is_refused(start: Callable[..., AgentPane]) -> None:
    pane = start("cat")
    with pytest.raises(AgentUnavailable, match="already runs"):
        start("cat")
    assert pane.look() is not None


def test_a_stale_socket_does_not_disturb(start: Callable[..., AgentPane], folder: Path) -> None:
    first = start("cat")
    server = first.server.listener()
    assert server is not None
    server.kill()
    until(lambda: not alive(server), "the server is dead")
    assert (folder / "s").exists()
    assert first.look() is None
    assert AgentPane.adopt(folder / "s", first.pane_id) is None
    second = start("cat")
    assert second.look() is not None


STARTER = """
import os, sys, time
from pathlib import Path
from torch_tasks.workers.tmux.pane import AgentPane
pane = AgentPane.start(Path(sys.argv[1]), "a", ["cat"], workdir=Path("/tmp"), environment=dict(os.environ))
print(pane.pane_id, pane.look().pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_pane_outlives_its_starter(folder: Path, how: signal.Signals) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(folder / "s")], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert starter.stdout is not None
    with starter:
        pane_id, pid = starter.stdout.readline().split()
        os.killpg(starter.pid, how)
    pane = AgentPane.adopt(folder / "s", pane_id)
    assert pane is not None
    look = pane.look()
    assert look is not None
    assert (look.pane_id, look.pid, look.dead) == (pane_id, int(pid), False)
    until(lambda: len(pane.server.cmd("list-clients").stdout) == 1, "only our client is left")
    assert AgentPane.adopt(folder / "s", "%99") is None
    pane.close()


def test_a_vanished_pane_is_none(start: Callable[..., AgentPane]) -> None:
    pane = start("cat")
    assert pane.server.cmd("split-window", "-d", "cat", target=pane.pane_id).ok
    assert pane.look() is not None
    assert pane.server.cmd("kill-pane", target=pane.pane_id).ok
    assert pane.look() is None
    with pytest.raises(AgentUnavailable, match="is gone"):
        pane.paste("lost")
    with pytest.raises(AgentUnavailable, match="refused capture-pane"):
        pane.screen()


def test_the_last_pane_takes_its_server_along(start: Callable[..., AgentPane]) -> None:
    pane = start("cat")
    assert pane.server.cmd("kill-pane", target=pane.pane_id).ok
    until(lambda: pane.server.listener() is None, "the server ended")
    assert pane.look() is None


@pytest.mark.parametrize("ending", ["exit 42", "sleep 0.05; exit 42"])
def test_a_death_is_told_with_its_exit_code(start: Callable[..., AgentPane], folder: Path, ending: str) -> None:
    told = folder / "it's #{pane_id} 100%"
    pane = start("sh", "-c", ending, on_death=f"echo noise; echo died >> {shlex.quote(str(told))}; exit 3")
    look = looked(pane, lambda look: look.dead, "the pane is dead")
    assert look.dead_status == 42
    assert not look.in_mode
    until(lambda: contents(told), "the hook ran")
    assert contents(told) == b"died\n"
    with pytest.raises(AgentUnavailable, match="ended with exit code 42"):
        pane.paste("too late")


def test_a_program_that_cannot_be_run_says_so(start: Callable[..., AgentPane]) -> None:
    pane = start("no-such-program")
    assert looked(pane, lambda look: look.dead, "the pane is dead").dead_status == 127


def test_a_transcript_is_raw_and_replaced(start: Callable[..., AgentPane], folder: Path) -> None:
    first, second = folder / "it's 50%H #{pane_id}", folder / "two"
    first.write_bytes(b"before|")
    pane = start("cat")
    looked(pane, lambda look: look.command == "cat", "cat runs")
    pane.transcribe(first)
    pane.paste("hello")
    pane.press("Enter")
    until(lambda: contents(first).endswith(b"hello\r\nhello\r\n"), "the raw output is in the file")
    assert contents(first) == b"before|hello\r\nhello\r\n"
    pane.transcribe(second)
    pane.paste("again")
    pane.press("Enter")
    until(lambda: contents(second).endswith(b"again\r\nagain\r\n"), "the second file has the rest")
    assert b"again" not in contents(first)


def test_the_end_leaves_nothing(start: Callable[..., AgentPane], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_tasks.workers.tmux.pane.END_SECONDS", 0.5)
    stubborn = folder / "stubborn"
    pane = start("sh", "-c", f"trap '' HUP TERM; echo > {stubborn}; while :; do sleep 100; done")
    until(stubborn.exists, "the program ignores signals")
    pane.transcribe(folder / "log")
    look, server = pane.look(), pane.server.listener()
    assert look is not None
    assert server is not None
    family = [server, *server.children(recursive=True)]
    pane.end()
    assert not [process for process in family if alive(process)]
    assert argument_lists_with(f"{folder}/s ") == []
    assert {path.name for path in folder.iterdir()} == {"stubborn", "log"}
    assert pane.look() is None
    pane.end()

"""The old tools, reborn: each fault that they had, seen from the program that reads.

The programs run on a tmux server of the test's own, which is the user's default server to the tools.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import forked
import pytest
from desk import READER, SEND, Desk, read
from desk import desk as desk
from machine import TORCH_TASKS
from person import Person
from waiting import until

from torch_tasks.compat.tmux_utils import TmuxOrchestrator, TmuxSession, TmuxWindow
from torch_tasks.errors import PaneNotFound

UNCERTAIN = 6
HOSTILE = [
    "-x",
    "Enter",
    "C-c",
    "ends with ;",
    "$HOME `id` $(id) #{pane_id} #(id)",
    "'q' \"q\" \\ \\n",
    "🚒 é 漢字",
    " blanks ",
]


# ── send-claude-message.sh ───────────────────────────────────────────────────────────────────────────────────────


def test_what_is_sent_is_read_byte_for_byte_and_once(desk: Desk) -> None:
    framed, lines, expected = desk.reader("framed", "frames", "echo"), desk.lines("lines"), [b"", b""]
    for text in HOSTILE:
        both = [desk.begin(name + ":0", text) for name in ("framed", "lines")]
        assert [process.communicate(timeout=60) for process in both] == [
            (f"Message sent to {name}:0: {text}\n", "") for name in ("framed", "lines")
        ]
        expected[0] += b"\x1b[200~" + text.encode() + b"\x1b[201~\r"
        expected[1] += text.encode() + b"\n"
    assert read(framed, len(expected[0])) == expected[0]
    assert read(lines, len(expected[1])) == expected[1]
    assert desk.tmux("list-buffers") == ""


def test_the_words_are_joined_and_newlines_do_not_submit(desk: Desk) -> None:
    log = desk.reader("framed", "frames", "echo")
    desk.send("framed", "two", "words")
    desk.send("framed", "one\ntwo\n\nthree")
    expected = b"\x1b[200~two words\x1b[201~\r\x1b[200~one\ntwo\n\nthree\x1b[201~\r"
    assert read(log, len(expected)) == expected


def test_a_long_text_arrives_whole(desk: Desk) -> None:
    text = "\n".join(f"{number:04d} a line of a long text" for number in range(700))
    log = desk.reader("framed", "frames", "echo")
    desk.send("framed", text)
    expected = b"\x1b[200~" + text.encode() + b"\x1b[201~\r"
    assert read(log, len(expected)) == expected


def test_a_program_that_shows_nothing_has_it_when_it_has_read_it(desk: Desk) -> None:
    log = desk.reader("silent")
    assert desk.send("silent:0", "s3cret" * 1000) == ""
    assert read(log, 6001) == b"s3cret" * 1000 + b"\r"


@pytest.mark.parametrize("shell", [["bash", "--norc", "-i"], ["bash", "--norc", "--noediting", "-i"]])
def test_a_shell_runs_it_once(desk: Desk, shell: list[str]) -> None:
    done = desk.folder / "done"
    desk.session("sh", *shell, shows="$")
    desk.send("sh:0", f"echo '-n ;' >> {done};")
    assert read(done, 5) == b"-n ;\n"
    desk.send("sh:0", f"for n in 1 2; do\n echo $n >> {done}\ndone")
    assert read(done, 9) == b"-n ;\n1\n2\n"


def test_an_empty_message_is_refused(desk: Desk) -> None:
    log = desk.reader("r", "echo")
    assert "the message is empty" in desk.send("r:0", "", code=2)
    assert "the message is empty" in desk.send("r:0", " \n", code=2)
    assert "control character '\\x03'" in desk.send("r:0", "a\x03b", code=2)
    assert log.read_bytes() == b""


def test_a_line_that_would_be_cut_is_refused(desk: Desk) -> None:
    log = desk.lines("lines")
    assert "lines of at most 4,095 bytes" in desk.send("lines:0", "x" * 4096, code=1)
    assert log.read_bytes() == b""
    desk.send("lines:0", "x" * 4095)
    assert read(log, 4096) == b"x" * 4095 + b"\n"


def test_copy_mode_swallows_nothing(desk: Desk) -> None:
    log = desk.reader("r", "echo")
    desk.tmux("copy-mode", "-t", "r:0")
    desk.send("r:0", "q seen")
    assert read(log, 7) == b"q seen\r"


def test_two_senders_at_once_do_not_interleave(desk: Desk) -> None:
    log = desk.reader("r", "frames", "echo")
    senders = [desk.begin("r:0", f"sender {number} " * 20) for number in range(4)]
    assert [sender.wait(60) for sender in senders] == [0] * 4
    for sender in senders:
        sender.communicate()
    messages = {b"\x1b[200~" + (f"sender {number} " * 20).encode() + b"\x1b[201~" for number in range(4)}
    seen = read(log, sum(map(len, messages)) + 4).split(b"\r")
    assert set(seen[:-1]) == messages
    assert len(seen) == 5


def test_nothing_goes_to_a_session_whose_name_begins_alike(desk: Desk) -> None:
    log = desk.reader("prod-api", "echo")
    assert "no session 'prod'; did you mean prod-api?" in desk.send("prod:0", "rm -rf", code=1)
    assert "no session 'prod*'" in desk.send("prod*:0", "rm -rf", code=1)
    assert "no window or pane 'prod-api:7'" in desk.send("prod-api:7", "rm -rf", code=1)
    assert "no broker answers to look for an agent" in desk.send("prod", "rm -rf", code=1)
    assert log.read_bytes() == b""


def test_windows_and_panes_are_named_exactly(desk: Desk) -> None:
    desk.reader("my work", "echo")
    logs = []
    for name in ("api:v2", "v1.5 beta"):
        logs.append(desk.folder / name)
        program = [sys.executable, "-c", READER, str(logs[-1]), "echo"]
        desk.tmux("new-window", "-d", "-t", "=my work:", "-n", name, *program)
        desk.send(f"my work:{name}", "by name")
    pane = desk.tmux("split-window", "-dP", "-F", "#{pane_id}", "-t", "my work:2", "cat").strip()
    desk.send(pane, "by id")
    desk.send("my work:2.0", "by number")
    desk.send("my work:v1.5 beta.1", "by name and number")
    assert read(logs[0], 8) == b"by name\r"
    assert read(logs[1], 18) == b"by name\rby number\r"
    assert desk.screen(pane).split("\n")[:4] == ["by id"] * 2 + ["by name and number"] * 2


def test_what_cannot_take_it_is_named(desk: Desk) -> None:
    assert "no tmux server runs at" in desk.send("s:0", "hi", code=1)
    desk.session("dead", "cat")
    desk.tmux("set", "-g", "remain-on-exit", "on")
    desk.tmux("respawn-pane", "-k", "-t", "dead:0", "true")
    until(lambda: desk.tmux("list-panes", "-t", "dead:0", "-F", "#{pane_dead}").strip() == "1", "it is dead")
    assert "the program in dead:0.0 (%0) has ended" in desk.send("dead:0", "hi", code=1)
    desk.session("cat", "cat")
    desk.tmux("select-pane", "-d", "-t", "cat:0")
    assert "the input of cat:0.0 (%1) is off" in desk.send("cat:0", "hi", code=1)
    desk.tmux("select-pane", "-e", "-t", "cat:0")
    desk.tmux("set", "-w", "-t", "cat:0", "synchronize-panes", "on")
    assert "are synchronized" in desk.send("cat:0", "hi", code=1)


def test_what_nobody_reads_is_not_called_sent(desk: Desk) -> None:
    desk.session("busy", "sleep", "1000")
    log = desk.folder / "hung"
    hangs = READER.replace("while True", f"while not os.path.exists({str(desk.folder / 'go')!r}): pass\nwhile True")
    desk.session(
        "hung",
        sys.executable,
        "-c",
        hangs.replace("pass", "time.sleep(0.1)").replace("os, ", "os, time, "),
        str(log),
        shows="ready",
    )
    both = [desk.begin(target, "hi") for target in ("busy:0", "hung:0")]
    (busy_out, busy), (hung_out, stopped) = [process.communicate(timeout=60) for process in both]
    (desk.folder / "go").touch()
    assert [process.returncode for process in both] == [UNCERTAIN] * 2
    assert busy_out + hung_out == ""
    assert "sleep in busy:0.0 (%0) does not read" in busy
    assert "Enter was not pressed" in stopped
    assert read(log, 2) == b"hi"


def test_an_enter_that_was_swallowed_is_pressed_again_and_a_deaf_program_is_told_of(desk: Desk) -> None:
    log = desk.folder / "log"
    swallows = READER.replace('if data == b"\\r" else shown', "if log_size() > int(sys.argv[2]) else b''")
    swallows = swallows.replace("log = os", "log_size = lambda: os.stat(sys.argv[1]).st_size\nlog = os", 1)
    program = swallows.replace('if "echo" in sys.argv:', "if data != b'\\r': os.write(1, data)\n    else:")
    assert program != READER
    desk.session("once", sys.executable, "-c", program, str(log), "4", shows="ready")
    desk.session("deaf", sys.executable, "-c", program, str(desk.folder / "deaf"), "99", shows="ready")
    deaf = desk.begin("deaf:0", "abc")
    desk.send("once:0", "abc")
    assert read(log, 5) == b"abc\r\r"
    assert "is still in the input line of" in deaf.communicate(timeout=60)[1]
    assert deaf.returncode == 1


def test_too_few_arguments_are_answered_as_ever(desk: Desk) -> None:
    for words in ([], ["s:0"]):
        process = desk.begin(*words)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert out == f"Usage: {SEND} <session:window> <message>\nExample: {SEND} agentic-seek:3 'Hello Claude!'\n"
        assert err == ""


# ── compat install ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_installed_files_work_from_anywhere(desk: Desk) -> None:
    place = desk.folder / "it's here"
    log = desk.lines("lines")
    argv = [TORCH_TASKS, "compat", "install", str(place)]
    run: Callable[..., subprocess.CompletedProcess[str]] = lambda argv, **how: subprocess.run(  # noqa: E731
        argv, capture_output=True, text=True, timeout=60, **{"env": desk.env, **how}
    )
    names = ("send-claude-message.sh", "schedule_with_note.sh", "tmux_utils.py")
    files = [place / name for name in names]
    assert run(argv).stdout.splitlines() == [f"wrote {file}" for file in files]
    assert run(argv).returncode == 0  # again, over its own
    (desk.folder / "json.py").write_text("raise SystemExit('shadowed')")
    env = {**desk.env, "PATH": os.defpath}
    said = run([files[0], "lines:0", "$HOME", "-x;"], cwd=desk.folder, env=env)
    assert said.stdout == "Message sent to lines:0: $HOME -x;\n"
    assert read(log, 10) == b"$HOME -x;\n"
    assert run([files[0]]).stdout.startswith(f"Usage: {files[0]} <session:window> <message>\n")
    systems = shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable
    for command in ([files[-1]], [sys.executable, files[-1]], [systems, files[-1]]):
        status = json.loads(run(command, cwd="/", env=env).stdout)
        assert [session["name"] for session in status["sessions"]] == ["lines"]
    imported = (
        "import tmux_utils as t; print(t.TmuxOrchestrator().find_window_by_name('PY'), t.TmuxWindow, t.TmuxSession)"
    )
    assert run([sys.executable, "-c", imported], cwd=place).stdout.startswith("[('lines', 0)] <class")


def test_nothing_of_somebody_elses_is_overwritten(tmp_path: Path) -> None:
    foreign = tmp_path / "tmux_utils.py"
    foreign.write_text("mine")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return forked.run([TORCH_TASKS, "compat", "install", str(tmp_path), *words])

    refused = run()
    assert refused.returncode == 1
    assert f"nothing was written: {foreign} is not from Torch" in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["tmux_utils.py"]
    assert foreign.read_text() == "mine"
    assert run("--force").returncode == 0
    assert "Torch" in foreign.read_text()


# ── tmux_utils.py ────────────────────────────────────────────────────────────────────────────────────────────────


def test_windows_with_colons_and_sessions_with_two_visitors(desk: Desk) -> None:
    desk.session("one", "cat")
    desk.tmux("rename-window", "-t", "one:0", "api:v2")
    desk.session("two words", "cat")
    visit = partial(Person, "-t", "=one", env=desk.env)
    with visit(), visit():
        old = TmuxOrchestrator()
        sessions = old.get_tmux_sessions()
        assert sessions[0] == TmuxSession("one", [TmuxWindow("one", 0, "api:v2", True)], attached=True)
        assert [session.attached for session in sessions] == [True, False]
        assert old.find_window_by_name("API:") == [("one", 0)]
        info = old.get_window_info("one", 0)
        assert list(info) == ["name", "active", "panes", "layout", "content"]
        layout = desk.tmux("display", "-p", "-t", "one:0", "#{window_layout}").strip()
        assert (info["name"], info["active"], info["panes"], info["layout"]) == ("api:v2", True, 1, layout)


def test_the_last_lines_are_as_many_as_asked_for(desk: Desk) -> None:
    desk.session("s", "sh", "-c", "seq 100; exec cat", shows="100")
    old = TmuxOrchestrator()
    assert old.capture_window_content("s", 0, 10).splitlines() == [str(number) for number in range(91, 101)]
    assert len(old.capture_window_content("s", 0).splitlines()) == 50
    assert len(old.capture_window_content("s", 0, 5000).splitlines()) == 100
    old.max_lines_capture = 7
    assert old.capture_window_content("s", 0, 5000).splitlines()[0] == "94"
    assert old.capture_window_content("s", 0, 0) == ""
    desk.session("blank", "sh", "-c", "echo alone; exec cat", shows="alone")
    desk.tmux("rename-window", "-t", "blank:0", "w")
    snapshot = old.create_monitoring_snapshot()
    head = f"Session: blank (DETACHED)\n{'-' * 30}\n  Window 0: w (ACTIVE)\n    Recent output:\n"
    assert f"{head}    | alone\n\n" in snapshot


def test_what_is_not_there_is_an_error_and_no_content(desk: Desk) -> None:
    old = TmuxOrchestrator()
    assert old.get_tmux_sessions() == []
    assert old.get_all_windows_status()["sessions"] == []
    desk.session("s", "cat")
    with pytest.raises(PaneNotFound, match="no window or pane 's:4'"):
        old.capture_window_content("s", 4)
    assert list(old.get_window_info("s", 4)) == ["error"]
    assert list(old.get_window_info("nobody", 0)) == ["error"]


def test_nothing_is_typed_without_a_yes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = desk.reader("r", "echo")
    old = TmuxOrchestrator()
    monkeypatch.setattr("sys.stdin", Path("/dev/null").open())  # noqa: SIM115 - as for a program without a terminal
    assert old.send_command_to_window("r", 0, "ls") is False
    said = capfd.readouterr().out
    assert said == "SAFETY CHECK: About to send 'ls' to r:0\nConfirm? (yes/no): Operation cancelled\n"
    assert log.read_bytes() == b""
    assert old.send_command_to_window("r", 0, "-l;", confirm=False)
    assert old.send_keys_to_window("r", 0, "text", confirm=False)
    old.safety_mode = False
    assert old.send_keys_to_window("r", 0, "C-c")
    assert read(log, 9) == b"-l;\rtext\x03"
    assert old.send_command_to_window("nobody", 0, "ls") is False
    assert "Error sending keys: no session 'nobody'" in capfd.readouterr().err


def test_the_status_as_json_has_the_keys_it_had(desk: Desk) -> None:
    desk.session("s", "cat")
    utils = Path(sys.executable).with_name("tmux_utils.py")
    said = subprocess.run([utils], env=desk.env, capture_output=True, text=True, check=True, timeout=60).stdout
    status = json.loads(said)
    assert said == json.dumps(status, indent=2) + "\n"
    assert list(status) == ["timestamp", "sessions"]
    (session,) = status["sessions"]
    assert {name: value for name, value in session.items() if name != "windows"} == {"name": "s", "attached": False}
    assert list(session["windows"][0]) == ["index", "name", "active", "info"]

"""``schedule_with_note.sh``, reborn: each fault that it had, seen from the program that reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from machine import Machine
from waiting import until

pytestmark = pytest.mark.slow

LINES = """
import sys
log = open(sys.argv[1], "ab", 0)
print("ready", flush=True)
for line in sys.stdin.buffer: log.write(line)
"""
KEPT = "kept"


class Desk:
    """A person's terminal on a machine: a tmux server of the test's own, and the installed script."""

    def __init__(self, *up: str) -> None:
        self.machine = Machine()
        tmux = self.machine.folder / "tmux-home"
        tmux.mkdir()
        self.machine.env["TMUX_TMPDIR"] = str(tmux)
        self.machine.fork_stack()
        self.place = self.machine.folder / "old tools"
        self.machine.torch("compat", "install", str(self.place))
        self.machine.torch("up", "--detach", "--no-flower", *up, "--agent", "developer-1:developer", seconds=90)

    def run(self, *words: str, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the script to its end, which must be this exit code."""
        argv = [str(self.place / "schedule_with_note.sh"), *words]
        cwd = cwd or self.machine.work
        done = subprocess.run(
            argv, env=self.machine.env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def checkin(self, done: subprocess.CompletedProcess[str]) -> str:
        """The id of the check-in that was made."""
        found = re.search(r"it is check-in (\S+):", done.stderr)
        assert found, done.stderr
        return found[1]

    def fire(self, done: subprocess.CompletedProcess[str], outcome: str = "sent") -> dict[str, Any]:
        """What became of it, once that is known."""
        words = ("checkin", "history", self.checkin(done), "--json")

        def found() -> dict[str, Any] | None:
            fires = json.loads(self.machine.torch(*words).stdout)
            return fires[0] if fires and fires[0]["outcome"] in ("sent", "refused", "skipped") else None

        fire = until(found, "its fate is known", 45)
        assert fire["outcome"] == outcome, fire
        return fire

    def tmux(self, *words: str) -> str:
        """What the user's own tmux answers."""
        argv = ["tmux", "-f", "/dev/null", *words]
        return subprocess.run(argv, env=self.machine.env, capture_output=True, text=True, check=True, timeout=20).stdout

    def session(self, name: str) -> Path:
        """Start a session with a program that reads lines; returns the file with what it read."""
        log = self.machine.folder / name
        log.unlink(missing_ok=True)
        self.tmux("new-session", "-d", "-s", name, sys.executable, "-c", LINES, str(log))
        until(lambda: "ready" in self.tmux("capture-pane", "-p", "-t", name), f"{name} reads")
        return log

    def scheduled(self) -> int:
        """How many check-ins there are."""
        return len(json.loads(self.machine.torch("checkin", "list", "--all", "--json").stdout))

    def end_sessions(self) -> None:
        """End every session but the one that keeps the tmux server running."""
        self.tmux("kill-session", "-a", "-t", KEPT)

    def close(self) -> None:
        """End it all."""
        subprocess.run(["tmux", "kill-server"], env=self.machine.env, capture_output=True, check=False)
        self.machine.torch("down")
        self.machine.close()


@pytest.fixture(scope="module")
def shared_desk() -> Iterator[Desk]:
    """A desk on a machine where all runs."""
    desk = Desk()
    desk.tmux("new-session", "-d", "-s", KEPT, "cat")
    yield desk
    desk.close()


@pytest.fixture
def desk(shared_desk: Desk) -> Iterator[Desk]:
    """That desk, whose tmux server runs and has no session of another test."""
    yield shared_desk
    shared_desk.end_sessions()


def test_the_note_arrives_in_the_agents_pane_after_six_seconds(desk: Desk) -> None:
    begun = datetime.now()
    done = desk.run("0.1", "look at this very build", "developer-1")
    first, second, third = done.stdout.splitlines()
    assert first == "Scheduling check in 0.1 minutes with note: look at this very build"
    assert re.fullmatch(r"Scheduled successfully - process detached \(PID: \d+\)", second)
    clocks = re.fullmatch(r"SCHEDULED TO RUN AT: (\d\d:\d\d:\d\d) \(in 0.1 minutes from (\d\d:\d\d:\d\d)\)", third)
    assert clocks
    then, now = (datetime.strptime(clock, "%H:%M:%S") for clock in clocks.groups())
    assert (then - now) % timedelta(days=1) == timedelta(seconds=6)
    note = (desk.place / "next_check_note.txt").read_text()
    assert re.fullmatch(
        r"=== Next Check Note \(.* \d{4}\) ===\nScheduled for: 0.1 minutes\n\nlook at this very build\n", note
    )
    until(
        lambda: "look at this very build" in desk.machine.tmux("developer-1", "capture-pane", "-p"), "it is in the pane"
    )
    assert datetime.now() - begun >= timedelta(seconds=6)
    (receipt,) = desk.fire(done)["receipts"]
    until(
        lambda: "acknowledged" in desk.machine.torch("messages", receipt["message"]).stdout,
        "the agent's program is known to have taken it",
    )


def test_the_note_arrives_in_a_pane_of_the_users_own_byte_for_byte(desk: Desk) -> None:
    log = desk.session("tmux-orc")
    note = "-x; $HOME `id` 'q' \"é\" ;"
    fire = desk.fire(desk.run("0.01", note, "tmux-orc:0"))
    assert log.read_text() == f"{note}\n"
    assert "tmux-orc:0" in fire["note"]
    pane = desk.tmux("display-message", "-p", "-t", "tmux-orc", "#{pane_id}").strip()
    desk.fire(desk.run("0.01", "by its id", pane))
    assert log.read_text() == f"{note}\nby its id\n"


def test_who_says_nothing_means_three_minutes_and_the_old_target(desk: Desk) -> None:
    desk.session("tmux-orc")
    done = desk.run()
    assert done.stdout.splitlines()[0] == "Scheduling check in 3 minutes with note: Standard check-in"
    assert "says little" in done.stderr
    shown = desk.machine.torch("checkin", "show", desk.checkin(done)).stdout
    assert "pane tmux-orc:0 on " in shown
    again = desk.run("", "", "")
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0]
    for one in (done, again):
        desk.machine.torch("checkin", "remove", desk.checkin(one))


def test_thirty_minutes_with_a_point_are_thirty_minutes(desk: Desk) -> None:
    done = desk.run("30.0", "look at the build", "developer-1")
    record = json.loads(desk.machine.torch("checkin", "show", desk.checkin(done), "--json").stdout)
    length = datetime.fromisoformat(record["slot"]) - datetime.fromisoformat(record["checkin"]["created_at"])
    assert abs(length - timedelta(minutes=30)) < timedelta(seconds=30)
    assert " (in 30.0 minutes from " in done.stdout


def test_what_cannot_be_is_refused_at_once_and_leaves_the_note_as_it_was(desk: Desk) -> None:
    desk.run("30", "the last that was scheduled", "developer-1")
    note, before = (desk.place / "next_check_note.txt").read_text(), desk.scheduled()
    for words, code, said in (
        (("30", "note", "developer-9"), 1, "no session 'developer-9'"),
        (("30", "note", "nowhere:0"), 1, "no session 'nowhere'"),
        (("30", "note", "%99"), 1, "there is no %99"),
        (("soon", "note", "developer-1"), 2, "'soon' is not a number of minutes"),
        (("0", "note", "developer-1"), 2, "not a number of minutes above 0"),
        (("-3", "note", "developer-1"), 2, "not a number of minutes above 0"),
        (("nan", "note", "developer-1"), 2, "not a number of minutes above 0"),
        (("30", "  ", "developer-1"), 2, "is empty"),
        (("5", "an", "unquoted", "note"), 1, "unquoted"),
    ):
        done = desk.run(*words, code=code)
        assert done.stdout == ""
        assert said in done.stderr
        assert done.stderr.startswith("Error: ")
    assert (desk.place / "next_check_note.txt").read_text() == note
    assert [file.name for file in desk.place.glob(".next*")] == []
    assert desk.scheduled() == before


def test_a_pane_that_is_gone_when_the_time_comes_is_told_of_in_the_history(desk: Desk) -> None:
    desk.session("short-lived")
    done = desk.run("0.05", "too late", "short-lived:0")
    desk.tmux("kill-session", "-t", "short-lived")
    fire = desk.fire(done, "refused")
    assert "no session 'short-lived'" in fire["note"]


def test_the_program_on_the_path_leaves_its_note_where_it_was_called(desk: Desk) -> None:
    here = desk.machine.work / "here"
    here.mkdir()
    program = Path(sys.executable).with_name("schedule_with_note.sh")
    done = subprocess.run(
        [program, "30", "from here", "developer-1"],
        env=desk.machine.env,
        cwd=here,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (here / "next_check_note.txt").read_text().endswith("\n\nfrom here\n")


def test_without_a_beat_or_a_broker_nothing_is_scheduled_and_it_says_so(tmp_path: Path) -> None:
    lonely = Desk("--no-beat")
    try:
        done = lonely.run("30", "look at the build", "developer-1", code=3)
        assert "nothing was scheduled: no beat runs" in done.stderr
        assert done.stdout == ""
        lonely.machine.torch("down")
        lonely.machine.env["TORCH_BROKER_CONNECT_SECONDS"] = "0.2"
        assert "nothing runs here" in lonely.run("30", "look at the build", "developer-1", code=4).stderr
        assert not (lonely.place / "next_check_note.txt").exists()
    finally:
        lonely.close()

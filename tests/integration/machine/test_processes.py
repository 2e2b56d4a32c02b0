"""Processes that outlive the command that started them, with real processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import until

from torch_tasks.errors import ProcessNotStarted, StateFolderUnusable
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.system.processes import Processes, Running, await_ready

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


class Machine(Processes):
    """The processes of one test, all ended after it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "run")
        self.run_dir = folder / "run"
        self.log = folder / "logs" / "it.log"
        self.started: list[int] = []

    def run(self, name: str, *argv: str) -> Running:
        running = self.start(name, argv, log=self.log)
        self.started.append(running.pid)
        return running


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    for pid in machine.started:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_is_found_again_by_another_command(machine: Machine) -> None:
    running = machine.run("one", "sleep", "600")
    machine.run("another", "sleep", "600")
    later = Processes(machine.run_dir)
    assert later.find("one") == running
    assert [process.name for process in later.all_running()] == ["another", "one"]
    assert os.getsid(running.pid) == running.pid
    assert stat.S_IMODE((machine.run_dir / "one.json").stat().st_mode) == 0o600


def test_stop_leaves_neither_process_nor_file(machine: Machine) -> None:
    running = machine.run("one", "sleep", "600")
    assert machine.stop("one", grace=10)
    assert not psutil.pid_exists(running.pid)
    assert list(machine.run_dir.iterdir()) == []
    assert not machine.stop("one", grace=10)


def test_one_that_does_not_listen_is_killed_after_the_grace(machine: Machine) -> None:
    running = machine.run("deaf", sys.executable, "-c", STUBBORN)
    await_ready(running, lambda: "ready" in machine.log.read_text(), 10)
    began = time.monotonic()
    machine.stop("deaf", grace=0.3)
    assert time.monotonic() - began >= 0.3
    assert not psutil.pid_exists(running.pid)


def test_children_in_its_group_end_with_it(machine: Machine) -> None:
    running = machine.run("parent", "sh", "-c", "sleep 600 & echo $!; wait")
    await_ready(running, lambda: machine.log.read_text().endswith("\n"), 10)
    child = psutil.Process(int(machine.log.read_text()))
    machine.stop("parent", grace=10)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child has ended", 10)


def test_one_that_ended_is_not_found(machine: Machine) -> None:
    machine.run("short", "true")
    until(lambda: machine.find("short") is None, "its record is gone", 10)
    assert machine.all_running() == []


def test_a_recycled_number_is_never_signalled(machine: Machine) -> None:
    running = machine.run("innocent", "sleep", "600")
    forged = running.model_copy(update={"name": "gone", "create_time": running.create_time - 1})
    write_private(machine.run_dir / "gone.json", forged.model_dump_json())
    assert machine.find("gone") is None
    assert not machine.stop("gone", grace=0)
    assert running.alive
    assert [process.name for process in machine.all_running()] == ["innocent"]


def test_a_changed_clock_does_not_hide_a_process(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    running = machine.run("one", "sleep", "600")
    boot, create = psutil.boot_time, psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: boot() + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create(self) + 3600)
    assert machine.find("one") == running


def test_one_that_ends_before_it_is_ready_says_why(machine: Machine) -> None:
    machine.log.parent.mkdir()
    machine.log.write_text("words of a former life\n")
    running = machine.run("broken", "sh", "-c", "echo the reason >&2; exit 3")
    with pytest.raises(ProcessNotStarted, match=r"ended before it was ready.*it\.log:\nthe reason$") as caught:
        await_ready(running, lambda: False, 10)
    assert "former life" not in str(caught.value)


def test_one_that_is_never_ready_is_named_in_time(machine: Machine) -> None:
    running = machine.run("slow", "sleep", "600")
    with pytest.raises(ProcessNotStarted, match=r"slow .* is not ready after 0\.2 s"):
        await_ready(running, lambda: False, 0.2)


def test_a_program_that_is_not_there(machine: Machine) -> None:
    with pytest.raises(ProcessNotStarted, match="no-such-program: No such file"):
        machine.run("x", "no-such-program")


def test_one_that_nobody_could_record_never_begins(machine: Machine, tmp_path: Path) -> None:
    make_folder(machine.run_dir)
    starter = (
        "import os, signal; from pathlib import Path; from torch_tasks.system import processes\n"
        "processes.write_private = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"processes.Processes(Path({str(machine.run_dir)!r})).start('x', ['touch', {str(tmp_path / 'begun')!r}],"
        f" log=Path({str(machine.log)!r}))"
    )
    before = {process.pid for process in psutil.process_iter()}
    assert subprocess.run([sys.executable, "-c", starter], check=False).returncode == -signal.SIGKILL
    until(lambda: not any(_waits(process, before) for process in psutil.process_iter()), "none of it is left", 10)
    assert not (tmp_path / "begun").exists()


def _waits(process: psutil.Process, before: set[int]) -> bool:
    """A new process that is about to touch the file."""
    try:
        return process.pid not in before and "touch" in process.cmdline()
    except psutil.Error:
        return False


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(StateFolderUnusable, match=rf"{tmp_path}/state/run.*TORCH_STATE_DIR"):
        make_folder(tmp_path / "state" / "run")

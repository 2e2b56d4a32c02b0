"""The warm parent forks what would be started: the same process, once, whoever is killed meanwhile."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from forked import require_forks
from machine import short_folder
from waiting import until

from torch_tasks.machine.commands import WARM_PARENT
from torch_tasks.system.processes import Files, Processes, Running
from torch_tasks.system.warm_start import NAME, SOCKET, WarmParent

#: A process that notes that it began, and what it is; then it ends as it is told, or waits.
SHOWN = """
import gc, json, os, random, signal, sys, threading, time
from pathlib import Path
folder = Path(sys.argv[1])
facts = {
    "argv": sys.argv, "orig_argv": sys.orig_argv, "cwd": os.getcwd(), "environment": dict(os.environ),
    "session": os.getsid(0), "input": os.readlink("/proc/self/fd/0"), "output": os.fstat(1)[1] == os.fstat(2)[1],
    "files": len(os.listdir("/proc/self/fd")) - 1, "threads": threading.active_count(), "gc": gc.isenabled(),
    "child_signal": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL, "wakeup": signal.set_wakeup_fd(-1),
    "random": random.random(), "modules": len(sys.modules), "main": __name__, "settings": os.environ.get("TORCH_NODE"),
}
(folder / f"{os.getpid()}.json").write_text(json.dumps(facts))
print("shown", flush=True)
match sys.argv[2:]:
    case ["exit", code]:
        sys.exit(int(code))
    case ["wait"]:
        while True:
            time.sleep(60)
"""
SHARED_MIB, OWN_MIB = 40, 15


class Place:
    """A folder with a warm parent, and processes that say what they are."""

    def __init__(self) -> None:
        self.folder = short_folder()
        self.run = self.folder / "run"
        self.began = self.folder / "began"
        self.began.mkdir()
        (self.folder / "torch_shown.py").write_text(SHOWN)
        self.env = {**os.environ, "PYTHONPATH": str(self.folder), "TORCH_STATE_DIR": str(self.folder)}
        self.processes = Processes(self.run)
        self.warm = self.client()

    def client(self, *program: str) -> WarmParent:
        return WarmParent(self.run, program or WARM_PARENT, self.folder / "warm.log")

    def start(self, name: str, *words: str, warm: WarmParent | None = None, **environment: str) -> Running:
        argv = [sys.executable, "-P", "-m", "torch_shown", str(self.began), *words]
        return self.processes.start(
            name,
            argv,
            log=self.folder / f"{name}.log",
            env={**self.env, **environment},
            cwd=self.began,
            forker=warm or self.warm,
        )

    def facts(self, running: Running) -> dict[str, Any]:
        """What a process has noted of itself."""
        file = self.began / f"{running.pid}.json"
        until(lambda: file.exists() and file.read_text(), f"{running.name} has begun")
        return dict(json.loads(file.read_text()))

    def parent(self) -> psutil.Process:
        running = self.processes.find(NAME)
        assert running is not None
        process = running.process()
        assert process is not None
        return process

    def is_forked(self, running: Running) -> bool:
        """Whether it has what the warm parent had loaded."""
        return bool(self.facts(running)["modules"] > 500)

    def close(self) -> None:
        for running in self.processes.all_running():
            self.processes.stop(running.name, 5)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    require_forks()
    place = Place()
    yield place
    place.close()


@pytest.fixture
def fresh() -> Iterator[Place]:
    """One where no warm parent runs yet."""
    require_forks()
    place = Place()
    yield place
    place.close()


def ended(running: Running) -> None:
    until(lambda: not running.alive, f"{running.name} has ended")


def test_a_forked_process_is_what_a_started_one_is(place: Place) -> None:
    forked = place.start("forked", "wait", TORCH_NODE="here")
    started = place.processes.start(
        "started",
        forked.argv,
        log=place.folder / "started.log",
        env={**place.env, "TORCH_NODE": "here"},
        cwd=place.began,
    )
    one, other = place.facts(forked), place.facts(started)
    assert place.is_forked(forked)
    assert not place.is_forked(started)
    assert one.pop("session") == forked.pid
    assert other.pop("session") == started.pid
    for facts in (one, other):
        for name in ("modules", "random"):
            del facts[name]
        for name in ("_", "SHLVL", "PWD", "OLDPWD"):
            facts["environment"].pop(name, None)
    assert one == other
    seen = [psutil.Process(running.pid) for running in (forked, started)]
    assert seen[0].cmdline() == seen[1].cmdline() == list(forked.argv)
    assert seen[0].environ()["TORCH_NODE"] == "here"
    assert seen[0].create_time() - psutil.boot_time() == pytest.approx(forked.create_time, abs=0.02)
    for running in (forked, started):
        assert place.processes.stop(running.name, 5)


def test_what_it_shares_is_shared(place: Place) -> None:
    running = place.start("sharing", "wait")
    place.facts(running)
    own, shared = memory(running.pid)
    assert own < OWN_MIB
    assert shared > SHARED_MIB
    place.processes.stop("sharing", 5)


def memory(pid: int) -> tuple[float, float]:
    """MiB that this process alone has written, and that others have, too."""
    sizes = dict.fromkeys(("Private_Dirty", "Shared_Dirty"), 0.0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name] += int(rest.split()[0]) / 1024
    return sizes["Private_Dirty"], sizes["Shared_Dirty"]


def test_no_two_have_the_same_random_numbers(place: Place) -> None:
    both = [place.start(f"random-{number}", "exit", "0") for number in range(2)]
    assert len({place.facts(running)["random"] for running in both}) == 2


@pytest.mark.parametrize("code", [0, 4])
def test_its_exit_code_is_known(place: Place, code: int) -> None:
    running = place.start("ending", "exit", str(code))
    ended(running)
    assert place.warm.exit_code(running) == code
    assert running.last_words() == "shown"


def test_the_signal_that_killed_it_is_known_to_another_client_too(place: Place) -> None:
    running = place.start("killed", "wait")
    place.facts(running)
    os.kill(running.pid, signal.SIGKILL)
    ended(running)
    assert place.client().exit_code(running) == -signal.SIGKILL


def test_its_socket_is_for_its_owner_alone(place: Place) -> None:
    place.start("any", "exit", "0")
    assert (place.run / SOCKET).stat().st_mode & 0o777 == 0o600
    assert place.run.stat().st_mode & 0o777 == 0o700


def test_one_that_nobody_says_go_to_never_begins(place: Place) -> None:
    argv = [sys.executable, "-P", "-m", "torch_shown", str(place.began), "exit", "0"]
    with (place.folder / "lost.log").open("ab") as output:
        child = place.warm.fork(argv, place.env, place.began, Files(*(output.fileno(),) * 3))
    assert child is not None
    os.close(child.go)
    until(lambda: not psutil.pid_exists(child.pid), "it has ended")
    assert not (place.began / f"{child.pid}.json").exists()


def test_none_is_used_of_another_environment_or_other_code(fresh: Place) -> None:
    (fresh.folder / "sitecustomize.py").write_text("")  # every Python with this folder on its path loads it
    assert fresh.is_forked(fresh.start("first", "exit", "0"))
    first = fresh.parent()
    assert fresh.is_forked(fresh.start("foreign", "exit", "0", LANG="C"))  # for which Python sets another one
    second = fresh.parent()
    (fresh.folder / "sitecustomize.py").write_text("changed = True\n")
    assert fresh.is_forked(fresh.start("newer", "exit", "0", LANG="C"))
    assert len({first, second, fresh.parent()}) == 3
    assert not first.is_running()
    assert not second.is_running()


def test_another_takes_its_place_when_it_is_killed_and_what_it_forked_goes_on(place: Place) -> None:
    running = place.start("lasting", "wait")
    place.facts(running)
    former = place.parent()
    former.kill()
    assert place.is_forked(place.start("next", "exit", "0"))
    assert place.parent() != former
    assert place.processes.find("lasting") == running
    assert place.processes.stop("lasting", 5)


def test_killed_while_it_loads_it_holds_nothing_up(fresh: Place) -> None:
    fresh.warm.begin(fresh.env)
    until(lambda: fresh.processes.find(NAME), "it loads")
    fresh.parent().kill()
    running = fresh.start("one", "exit", "0")
    fresh.facts(running)
    assert len([*fresh.began.iterdir()]) == 1


def test_killed_with_a_question_it_has_not_answered_it_starts_nothing_twice(place: Place) -> None:
    place.facts(place.start("before", "exit", "0"))
    before = set(place.began.iterdir())
    former = place.parent()
    former.suspend()
    found: list[Running] = []
    asking = threading.Thread(target=lambda: found.append(place.start("asked", "exit", "0")))
    asking.start()
    until(lambda: waits_for(former), "it was asked")
    former.kill()
    asking.join(60)
    place.facts(found[0])
    ended(found[0])
    assert len(set(place.began.iterdir()) - before) == 1


def waits_for(process: psutil.Process) -> bool:
    """Whether somebody has connected to its socket since it was stopped."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(SOCKET in line for line in lines) > 1 and process.status() == psutil.STATUS_STOPPED


def test_two_who_need_one_at_once_share_it(fresh: Place) -> None:
    running: dict[int, Running] = {}

    def start(number: int) -> None:
        running[number] = fresh.start(f"child-{number}", "wait", warm=fresh.client())

    starting = [threading.Thread(target=start, args=(number,)) for number in range(4)]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join(60)
    parents = {psutil.Process(one.pid).ppid() for one in running.values()}
    assert parents == {fresh.parent().pid}
    assert all(fresh.is_forked(one) for one in running.values())
    assert len([*fresh.began.iterdir()]) == 4


def test_without_one_it_is_started_as_usual_and_the_log_says_why(
    fresh: Place, caplog: pytest.LogCaptureFixture
) -> None:
    broken = fresh.client(sys.executable, "-c", "import sys; sys.exit('no memory map')")
    with caplog.at_level(logging.WARNING):
        running = fresh.start("cold", "exit", "0", warm=broken)
    assert not fresh.is_forked(running)
    assert "no memory map" in caplog.text
    begun = time.monotonic()
    fresh.start("again", "exit", "0", warm=broken)
    assert time.monotonic() - begun < 1, "it is not tried each time"


def test_one_that_hangs_is_waited_for_once(fresh: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_tasks.system.warm_start.ANSWER_SECONDS", 0.3)
    fresh.facts(fresh.start("before", "exit", "0"))
    former = fresh.parent()
    former.suspend()
    assert not fresh.is_forked(fresh.start("cold", "exit", "0"))
    assert not former.is_running()
    assert fresh.is_forked(fresh.start("after", "exit", "0"))

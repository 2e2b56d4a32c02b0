"""Processes of tests that are forked from one that has loaded Torch, as a node worker's are: a fifth of the work."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest
from machine import short_folder

from torch_tasks.machine.commands import WARM_PARENT
from torch_tasks.system.processes import Running, this_boot
from torch_tasks.system.surroundings import surroundings
from torch_tasks.system.warm_start import PYTHON, WarmParent

_GRACE_SECONDS = 5.0
_GONE = -signal.SIGKILL


class Forked:
    """A process that this one is not the parent of, with what tests ask of a :class:`subprocess.Popen`."""

    stdout = stderr = None

    def __init__(self, parent: WarmParent, running: Running) -> None:
        self.pid = running.pid
        self.returncode: int | None = None
        self._parent = parent
        self._running = running
        self._ended = os.pidfd_open(running.pid)

    def poll(self) -> int | None:
        """How it has ended, if it has."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            code = self._parent.exit_code(self._running)
            self.returncode = _GONE if code is None else code
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it has ended, when it has; :class:`subprocess.TimeoutExpired` if it takes longer."""
        if self.returncode is None:
            select.select([self._ended], [], [], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._running.argv, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._ended, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = subprocess.Popen[bytes] | Forked


class _Parents:
    """The warm parents of this test process: one for each environment in which a second process is started."""

    def __init__(self) -> None:
        self._seen: dict[str, WarmParent | None] = {}
        self._folders: list[Path] = []

    def for_environment(self, environment: Mapping[str, str]) -> WarmParent | None:
        mine = json.dumps(surroundings(environment), sort_keys=True)
        if mine not in self._seen:
            self._seen[mine] = None
        elif self._seen[mine] is None:
            self._folders.append(short_folder())
            folder = self._folders[-1]
            self._seen[mine] = WarmParent(folder, WARM_PARENT, folder / "log")
        return self._seen[mine]

    def end(self) -> None:
        for parent in filter(None, self._seen.values()):
            parent.stop(_GRACE_SECONDS)
        for folder in self._folders:
            shutil.rmtree(folder)
        self._seen, self._folders = {}, []


parents = _Parents()


@cache
def why_nothing_is_forked() -> str:
    """Why this system forks nothing, if so."""
    tried = "from torch_tasks.system.own_command_line import show_as; show_as(['shown'], {})"
    done = subprocess.run([sys.executable, "-c", tried], capture_output=True, text=True, check=False)
    return "".join(done.stderr.splitlines()[-1:])


def require_forks() -> None:
    """Skip the test where this system forks nothing."""
    if why := why_nothing_is_forked():
        pytest.skip(f"a process cannot be shown with other arguments here: {why}")


def start(argv: Sequence[str], env: Mapping[str, str], log: BinaryIO) -> Process:
    """Start a process in a session of its own, whose output goes to the end of the log."""
    environment = {name: value for name, value in env.items() if name != "PYTEST_CURRENT_TEST"}
    words = _of_a_module(argv)
    if words and not why_nothing_is_forked() and (parent := parents.for_environment(environment)):
        begins = log.tell()
        if child := parent.fork([*PYTHON, *words], environment, Path.cwd(), log.fileno()):
            running = Running(
                name=words[0],
                pid=child.pid,
                create_time=child.create_time,
                boot=this_boot(),
                argv=tuple(argv),
                log=Path(log.name),
                log_start=begins,
                log_inode=os.fstat(log.fileno()).st_ino,
            )
            forked = Forked(parent, running)
            os.write(child.go, b"go\n")
            os.close(child.go)
            return forked
    return subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def _of_a_module(argv: Sequence[str]) -> Sequence[str]:
    """The module of this Python that is run, and its words; nothing if something else is."""
    for begins in (PYTHON, (sys.executable, "-m")):
        if tuple(argv[: len(begins)]) == begins:
            return argv[len(begins) :]
    return ()

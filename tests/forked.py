"""Processes and commands of tests that are forked from one that has loaded Torch: a fifth of the work of a start."""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest

from torch_tasks.system.files import make_folder
from torch_tasks.system.processes import Child, Files
from torch_tasks.system.surroundings import surroundings
from torch_tasks.system.warm_start import PYTHON, SOCKET, WarmParent

_GRACE_SECONDS = 5.0
_GONE = -signal.SIGKILL
_CHUNK = 1 << 16
TORCH_TASKS = str(Path(sys.executable).with_name("torch-tasks"))
_PROGRAM = (sys.executable, "-P", str(Path(__file__).with_name("warm_commands.py")))
#: How a program of this Python is started, and the module that it then is.
_WAYS = {PYTHON: (), (sys.executable, "-m"): (), (TORCH_TASKS,): ("torch_tasks.cli",)}


class Forked:
    """A process that this one is not the parent of, with what tests ask of a :class:`subprocess.Popen`."""

    stdout = stderr = None

    def __init__(self, parent: WarmParent, child: Child, argv: Sequence[str]) -> None:
        self.pid = child.pid
        self.returncode: int | None = None
        self._parent = parent
        self._child = child
        self._argv = argv
        self._ended = os.pidfd_open(child.pid)

    def poll(self) -> int | None:
        """How it has ended, if it has."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            code = self._parent.exit_code(self._child)
            self.returncode = _GONE if code is None else code
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it has ended, when it has; :class:`subprocess.TimeoutExpired` if it takes longer."""
        if self.returncode is None:
            select.select([self._ended], [], [], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._argv, timeout or 0)
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
        self._seen: set[str] = set()
        self._parents: dict[str, WarmParent] = {}
        self._folders: dict[str, tempfile.TemporaryDirectory[str]] = {}

    def for_environment(self, environment: Mapping[str, str]) -> WarmParent | None:
        mine = _key(environment)
        if mine not in self._seen:
            self._seen.add(mine)
            return None
        if mine not in self._parents:
            # The path of a socket may not be long.
            self._folders[mine] = tempfile.TemporaryDirectory(prefix="t", dir="/tmp")
            folder = Path(self._folders[mine].name)
            self._parents[mine] = WarmParent(folder, _PROGRAM, folder / "log")
        return self._parents[mine]

    def lend(self, environment: Mapping[str, str], run_dir: Path) -> None:
        """Have the processes with this environment find their warm parent there, as if it were their machine's own."""
        mine = _key(environment)
        self._seen.add(mine)
        self.for_environment(environment)
        make_folder(run_dir)
        (run_dir / SOCKET).symlink_to(Path(self._folders[mine].name) / SOCKET)

    def end(self) -> None:
        for parent in self._parents.values():
            parent.stop(_GRACE_SECONDS)
        for folder in self._folders.values():
            folder.cleanup()
        self._seen, self._parents, self._folders = set(), {}, {}


def _key(environment: Mapping[str, str]) -> str:
    return json.dumps(surroundings(_of_any_test(environment)), sort_keys=True)


def _of_any_test(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}


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


def start(argv: Sequence[str], env: Mapping[str, str], log: BinaryIO, *, cwd: Path | None = None) -> Process:
    """Start a process in a session of its own, whose output goes to the end of the log."""
    with Path(os.devnull).open("rb") as nothing:
        return _start(argv, env, cwd, Files(nothing.fileno(), log.fileno(), log.fileno()))


def run(
    argv: Sequence[str],
    env: Mapping[str, str] = os.environ,
    *,
    cwd: Path | None = None,
    typed: str = "",
    seconds: float = 100.0,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """How a command ends that has this input. Its output is what it wrote: no ``\r\n`` becomes ``\n``."""
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    with _closing(out, err):
        with _closing(to_out, to_err), tempfile.TemporaryFile() as given:
            given.write(typed.encode())
            given.seek(0)
            process = _start(argv, env, cwd, Files(given.fileno(), to_out, to_err))
        try:
            deadline = time.monotonic() + seconds
            said = _read_all((out, err), deadline)
            code = process.wait(deadline - time.monotonic())
        except BaseException:
            process.kill()
            process.wait(_GRACE_SECONDS)
            raise
    done = subprocess.CompletedProcess(argv, code, *(text.decode() for text in said))
    if check:
        done.check_returncode()
    return done


def _start(argv: Sequence[str], env: Mapping[str, str], cwd: Path | None, files: Files) -> Process:
    return _fork(argv, env, cwd or Path.cwd(), files) or subprocess.Popen(
        argv, env=env, cwd=cwd, **files._asdict(), start_new_session=True
    )


def _fork(argv: Sequence[str], env: Mapping[str, str], cwd: Path, files: Files) -> Forked | None:
    """This process, forked; None if it has to be started."""
    environment = _of_any_test(env)
    words = _of_a_module(argv)
    parent = parents.for_environment(environment) if words and not why_nothing_is_forked() else None
    child = parent.fork([*PYTHON, *words], environment, cwd, files) if parent else None
    if not parent or not child:
        return None
    with _closing(child.go):
        forked = Forked(parent, child, argv)
        os.write(child.go, b"go\n")
    return forked


def _of_a_module(argv: Sequence[str]) -> Sequence[str]:
    """The module of this Python that is run, and its words; nothing if something else is."""
    for begins, module in _WAYS.items():
        if tuple(argv[: len(begins)]) == begins:
            return [*module, *argv[len(begins) :]]
    return ()


@contextmanager
def _closing(*files: int) -> Iterator[None]:
    try:
        yield
    finally:
        for file in files:
            os.close(file)


def _read_all(pipes: Sequence[int], deadline: float) -> list[bytes]:
    """What comes out of each until nobody can write to it any more."""
    said = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as waiting:
        for pipe in pipes:
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            if not (ready := waiting.select(deadline - time.monotonic())):
                raise TimeoutError(f"somebody may still write, after all the time for it; so far: {said}")
            for pipe in (key.fd for key, _ in ready):
                if chunk := os.read(pipe, _CHUNK):
                    said[pipe] += chunk
                else:
                    waiting.unregister(pipe)
    return list(said.values())

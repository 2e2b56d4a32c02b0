"""Processes of this machine that outlive the command that started them and are found again by later ones."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil
from pydantic import BaseModel, ConfigDict

from torch_tasks.errors import ProcessNotStarted, TorchError
from torch_tasks.system.files import make_folder, usable, write_private
from torch_tasks.system.log_files_aside import end_of_log
from torch_tasks.system.marks import take_off_mark, unmarked_environment

POLL_SECONDS = 0.02
KILL_SECONDS = 30.0
TAIL_LINES = 10
TAIL_BYTES = 8192
SAME_START_SECONDS = 0.02
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Running(BaseModel):
    """A process that was started: its number, and when it began, as a later process may get the same number."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    create_time: float
    """Seconds between the machine's start and the process's: unlike the time of day, it cannot be changed."""
    boot: str
    """The start of the machine in which it ran: after the next one, another process may have both its numbers."""
    argv: tuple[str, ...]
    log: Path
    log_start: int
    log_inode: int
    """Which file the log was, as another one may have its name by now."""
    facts: dict[str, str] = {}

    @property
    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        return self.process() is not None

    def process(self) -> psutil.Process | None:
        """The process, or None once it has ended, even if another one has its number now."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if self.boot != this_boot() or not _began_at(process, self.create_time):
                return None
            if process.status() != psutil.STATUS_ZOMBIE:
                return process
            with suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return None

    def last_words(self) -> str:
        said = end_of_log(self.log, TAIL_BYTES, (self.log_inode, self.log_start))
        return "\n".join(said.decode(errors="replace").splitlines()[-TAIL_LINES:])


class Child(NamedTuple):
    """A process that does not begin before a line comes to it: at its end, it ends."""

    pid: int
    create_time: float
    go: int
    """The file to write that line to."""


class Files(NamedTuple):
    """What a process reads, and what it writes to."""

    stdin: int
    stdout: int
    stderr: int


class Forker(Protocol):
    """What forks processes that have their modules loaded already."""

    def fork(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, files: Files) -> Child | None:
        """A child with these files; None if it cannot be had."""


class Processes:
    """The processes recorded in one folder, each under a name; callers lock a name before they start or stop it."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        facts: Mapping[str, str] | None = None,
        forker: Forker | None = None,
    ) -> Running:
        """Start a process that outlives its terminal and its parent; its output is appended to the log.

        It is forked from what has loaded its modules, if that can be had.
        """
        make_folder(self._run_dir)
        make_folder(log.parent)
        environment = unmarked_environment(env)
        with usable(log), log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
            log_start, log_inode = output.tell(), os.fstat(output.fileno()).st_ino
            files = Files(nothing.fileno(), output.fileno(), output.fileno())
            child = forker and forker.fork(argv, environment, cwd or Path.cwd(), files)
            child = child or _spawn(name, argv, env=environment, cwd=cwd, output=output.fileno())
            take_off_mark(child.pid)
        running = Running(
            name=name,
            pid=child.pid,
            create_time=child.create_time,
            boot=this_boot(),
            argv=tuple(argv),
            log=log,
            log_start=log_start,
            log_inode=log_inode,
            facts=dict(facts or {}),
        )
        try:
            write_private(self._file(name), running.model_dump_json())
            with suppress(BrokenPipeError):  # it was killed meanwhile
                os.write(child.go, b"go\n")
        finally:
            os.close(child.go)
        return running

    def find(self, name: str) -> Running | None:
        """The living process of this name; none if its record is broken."""
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            running = Running.model_validate_json(self._file(name).read_bytes())
            return running if running.alive else None
        return None

    def is_recorded(self, name: str) -> bool:
        """Whether the name has a record, which :meth:`stop` removes and the end of the process does not."""
        return self._file(name).exists()

    def all_running(self) -> list[Running]:
        """Every process that still runs, ordered by name."""
        names = sorted(file.stem for file in self._run_dir.glob("*.json"))
        return [running for name in names if (running := self.find(name))]

    def stop(self, name: str, grace: float) -> bool:
        """End the process and its group: terminate, wait for the grace, then kill. False if none ran."""
        running = self.find(name)
        if running:
            _end(running, grace)
        file = self._file(name)
        with usable(file):
            file.unlink(missing_ok=True)
        return running is not None

    def _file(self, name: str) -> Path:
        return self._run_dir / f"{name}.json"


def end_on_signals() -> None:
    """Treat SIGTERM and a closed terminal like Ctrl-C, and ignore all three from the first on."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(*_: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, end)


def await_ready(running: Running, ready: Callable[[], bool], seconds: float) -> None:
    """Wait until the process is ready; :class:`ProcessNotStarted` if it ends or the time is over before."""
    if _becomes_true(lambda: ready() or not running.alive, seconds) and running.alive:
        return
    words = running.last_words() or "(nothing)"
    happened = f"is not ready after {seconds:g} s" if running.alive else "ended before it was ready"
    who = f"{running.name} (process {running.pid})"
    raise ProcessNotStarted(f"{who} {happened}. The end of its log, {running.log}:\n{words}")


@cache
def this_boot() -> str:
    """Identifies the present start of the machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # a system without it
        return f"{psutil.boot_time():.0f}"


def birth(pid: int) -> str:
    """When a running process began, which no other of its number did: see :class:`Running`."""
    return f"{_create_time(psutil.Process(pid))}@{this_boot()}"


def processes_of(state_dir: Path) -> Iterator[tuple[psutil.Process, list[str]]]:
    """Every other living process with this state folder in its environment, and its arguments."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                given = process.environ().get("TORCH_STATE_DIR")
                if given and Path(given) == state_dir:
                    yield process, process.cmdline()


def programs_in(folder: Path, programs: Collection[str]) -> list[psutil.Process]:
    """The living processes of these programs whose working folder this is."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder:
                found += [process] if Path(process.exe()).name in programs else []
    return found


def kill_each(processes: Iterable[psutil.Process]) -> None:
    """Kill these processes, in this order; one that is gone is left out."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def end_all(processes: Sequence[psutil.Process], grace: float) -> None:
    """Terminate these processes, wait for the grace, then kill what is left; TorchError if one survives that."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    if _becomes_true(lambda: not _living(processes), grace):
        return
    kill_each(_living(processes))
    if not _becomes_true(lambda: not _living(processes), KILL_SECONDS):
        numbers = ", ".join(str(process.pid) for process in _living(processes))
        raise TorchError(f"process {numbers} has not ended {KILL_SECONDS:g} s after it was killed")


def _living(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not, and waits for the process that started it."""
    return [process for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def is_alive(pid: int, born: str) -> bool:
    """Whether the process of this number and :func:`birth` still runs, whichever process started it."""
    moment, _, boot = born.partition("@")
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        is_same = boot == this_boot() and _began_at(process, float(moment))
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    return False


def _began_at(process: psutil.Process, moment: float) -> bool:
    return abs(_create_time(process) - moment) <= SAME_START_SECONDS


def _create_time(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()


def _spawn(name: str, argv: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path | None, output: int) -> Child:
    """A child that waits for a line before it begins; if this process dies before recording it, it never begins."""
    if shutil.which(argv[0], path=(env or os.environ).get("PATH")) is None:
        raise ProcessNotStarted(f"{name} could not be started with {argv[0]}: {os.strerror(errno.ENOENT)}")
    waiting = ("sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh", *argv)
    given, go = os.pipe()
    try:
        child = subprocess.Popen(
            waiting, env=env, cwd=cwd, stdin=given, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as error:
        os.close(go)
        raise ProcessNotStarted(f"{name} could not be started with {argv[0]}: {error.strerror}") from error
    finally:
        os.close(given)
    child.returncode = 0  # keeps subprocess from warning: Running waits for the child
    # At least a zombie: nothing has waited for it yet.
    return Child(child.pid, _create_time(psutil.Process(child.pid)), go)


def _end(running: Running, grace: float) -> None:
    with suppress(psutil.NoSuchProcess):
        if process := running.process():
            process.terminate()
    if not _becomes_true(lambda: not running.alive, grace):
        kill_each(filter(None, [running.process()]))
    kill_each(_group(running))
    if not _becomes_true(lambda: not running.alive and not _group(running), KILL_SECONDS):
        raise TorchError(f"{running.name} (process {running.pid}) has not ended {KILL_SECONDS:g} s after it was killed")


def _group(running: Running) -> list[psutil.Process]:
    """The processes left of the group that it led; none if its number leads another group by now."""
    members = [process for process in psutil.process_iter() if _in_group(process, running.pid)]
    if any(process.pid == running.pid for process in members) and not running.alive:
        return []
    return members


def _in_group(process: psutil.Process, group: int) -> bool:
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    return False


def _becomes_true(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True

"""The warm parent: it loads what Torch's processes need, and forks one when it is asked to.

``python -P -m torch_tasks.workers.warm_parent SOCKET``. It opens no connection and starts no thread, reads no setting,
and says when a file of what it has loaded was changed: then nobody wants its children any more.
"""

from __future__ import annotations

import gc
import os
import runpy
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from torch_tasks.app import TASK_MODULES, app
from torch_tasks.model.audit_record import AuditRecord
from torch_tasks.settings import settings
from torch_tasks.signing.fleet_keys import FleetKeys
from torch_tasks.signing.key_certificate import KeyCertificate
from torch_tasks.system.own_command_line import show_as
from torch_tasks.system.processes import Files
from torch_tasks.system.surroundings import difference, surroundings
from torch_tasks.system.warm_start import PYTHON, receive, send

#: What the forked processes need besides what these lead to.
_PRELOADED = (
    "torch_tasks.broker.results",
    "torch_tasks.cli.nodes",
    "torch_tasks.cli.stack",
    "torch_tasks.cli.supervise",
    "torch_tasks.cli.workers",
    "torch_tasks.communication.help_wanted",
    "torch_tasks.facades.checkins",
    "torch_tasks.facades.messages",
    "torch_tasks.monitoring.drawing",
    "torch_tasks.monitoring.task_diffs",
    "torch_tasks.operations.agents",
    "torch_tasks.operations.audit",
    "torch_tasks.operations.canvas",
    "torch_tasks.operations.checkins",
    "torch_tasks.operations.collaboration",
    "torch_tasks.operations.pane",
    "torch_tasks.operations.policy",
    "torch_tasks.store.crossings",
    "torch_tasks.store.done_orders",
    "torch_tasks.store.need_times",
    "torch_tasks.store.nodes",
    "torch_tasks.store.standing_backups",
    "torch_tasks.store.task_index",
    "torch_tasks.tasks.batch",
    "torch_tasks.tasks.graph",
    "torch_tasks.tasks.remote_control",
    "torch_tasks.tasks.task_file",
    "torch_tasks.transport.message_forms",
    "torch_tasks.workers.consumer",
    "torch_tasks.workers.node.node_worker",
    "torch_tasks.workers.program",
    "torch_tasks.workers.programs.menu",
    "torch_tasks.workers.programs.reset_time",
    "torch_tasks.workers.programs.shell",
    "torch_tasks.workers.programs.turn",
    "torch_tasks.workers.programs.unknown_menu",
    "torch_tasks.beat.program",
    "torch_tasks.beat.scheduler",
    "billiard.dummy",
    "billiard.pool",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.backends.redis",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "cryptography.exceptions",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "kombu.transport.redis",
    *TASK_MODULES,
)
#: Models that every process reads, which would build them first.
_BUILT = (AuditRecord, FleetKeys, KeyCertificate)
_BACKLOG = 4096
_KNOWN_ENDS = 4096
_ASK_SECONDS = 2.0
"""How long a client that has connected may take to ask."""


class Command(NamedTuple):
    """What a forked process is to be."""

    argv: list[str]
    environment: dict[str, str]
    cwd: str
    go: int
    """The file from which it is told to begin."""


class WarmServer:
    """Answers at the socket, one client after the other."""

    def __init__(self, path: Path, given: Mapping[str, str]) -> None:
        self._mine = surroundings(given)
        self._loaded = _stamps()
        self._ends: dict[tuple[int, float], int] = {}
        self._children: dict[int, float] = {}
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._listener = _listen(path)

    def serve(self) -> Command:
        """Answer until the end; it returns in a forked child alone, which has nothing of the server's then."""
        while True:
            select.select([self._listener, self._woken], [], [])
            with suppress(BlockingIOError):
                self._woken.recv(_BACKLOG)
            self._note_ends()
            if command := self._serve_one():
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (self._listener, self._woken, self._waker):
                    end.close()
                return command

    def _serve_one(self) -> Command | None:
        with suppress(OSError, ValueError, KeyError):  # nobody asks, or a client that has gone or speaks otherwise
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(_ASK_SECONDS)
                return self._answer(connection)
        return None

    def _answer(self, connection: socket.socket) -> Command | None:
        question, files = receive(connection)
        try:
            match question["do"]:
                case "compare":
                    send(connection, {"why_not": self._why_not(question["surroundings"])})
                case "tell":
                    self._note_ends()
                    send(connection, {"code": self._ends.get((question["pid"], question["create_time"]))})
                case "fork":
                    return self._fork(connection, question, files)
        finally:
            for file in files:
                os.close(file)
        return None

    def _why_not(self, theirs: dict[str, str]) -> str:
        if differs := difference(self._mine, theirs):
            return f"it has another {differs}"
        changed = [file for file, stamp in self._loaded.items() if _stamp(file) != stamp]
        return f"{changed[0]} has changed since it was loaded" if changed else ""

    def _fork(self, connection: socket.socket, question: dict[str, Any], files: list[int]) -> Command | None:
        """The command, in the child; the parent tells the client of the child."""
        if why := self._why_not(question["surroundings"]):
            send(connection, {"refused": why})
            return None
        given, *own = files
        pid = os.fork()
        if pid == 0:
            go = _leave_parent(given, Files(*own))
            return Command(question["argv"], question["environment"], question["cwd"], go)
        # Nothing has waited for it yet, so it is there, if only as a zombie.
        born = self._children[pid] = psutil.Process(pid).create_time() - psutil.boot_time()
        send(connection, {"pid": pid, "create_time": born})
        return None

    def _note_ends(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._ends[ended, self._children.pop(ended)] = os.waitstatus_to_exitcode(status)
        while len(self._ends) > _KNOWN_ENDS:
            del self._ends[next(iter(self._ends))]


def _listen(path: Path) -> socket.socket:
    """Listen at the path, for its owner alone, in place of whatever was there."""
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    own = path.with_name(f"{path.name}.{os.getpid()}")
    own.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener.bind(str(own))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    own.rename(path)
    return listener


def _stamps() -> dict[str, tuple[int, ...] | None]:
    """What tells the files of all loaded modules from those that may take their place."""
    specs = (getattr(module, "__spec__", None) for module in list(sys.modules.values()))
    files = {spec.origin for spec in specs if spec and spec.has_location and spec.origin}
    return {file: _stamp(file) for file in sorted(files)}


def _stamp(file: str) -> tuple[int, ...] | None:
    with suppress(OSError):
        found = Path(file).stat()
        return found.st_mtime_ns, found.st_size, found.st_ino
    return None


def _leave_parent(given: int, files: Files) -> int:
    """Be a process of its own, in a session of its own, with these files; the one from which it is told to begin."""
    try:
        os.setsid()
        for number, file in enumerate(files):
            os.dup2(file, number)
        return os.dup(given)
    except BaseException:  # a second server would be worse than none
        os._exit(1)


def _become(command: Command, added: Mapping[str, str]) -> None:
    """Wait for the word to begin; then run what the command would run in a new Python. It ends if nobody says it.

    ``added`` are the variables that Python itself sets when it starts.
    """
    if not os.read(command.go, _BACKLOG):
        os._exit(1)
    os.close(command.go)
    os.chdir(command.cwd)
    os.environ.clear()
    os.environ.update({**command.environment, **added})
    time.tzset()
    show_as(command.argv, command.environment)
    gc.enable()
    sys.orig_argv[:] = command.argv
    module, *words = command.argv[len(PYTHON) :]
    sys.argv[:] = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _require_harmless() -> None:
    """End unless a fork of this process can do no harm."""
    threads = len([*Path("/proc/self/task").iterdir()])
    if threads > 1 or threading.active_count() > 1:
        sys.exit(f"what it has loaded has started {threads - 1} threads, which no child would have")
    if app.configured or settings.cache_info().currsize:
        sys.exit("what it has loaded has read the settings, which each child has to read itself")


def main() -> None:
    """Load, and serve; a forked child goes on here as what it is to be."""
    gc.disable()
    block = Path("/proc/self/environ").read_bytes().rstrip(b"\0").split(b"\0")
    given = {name: value for name, _, value in (os.fsdecode(one).partition("=") for one in block)}
    added = {name: value for name, value in os.environ.items() if name not in given}
    try:
        show_as(sys.orig_argv, os.environ)
    except OSError as error:
        sys.exit(f"this system lets no process show other arguments than its first ones: {error}")
    for name in _PRELOADED:
        import_module(name)
    for model in _BUILT:
        model.model_rebuild()
    _require_harmless()
    gc.collect()
    gc.freeze()
    _become(WarmServer(Path(sys.argv[1]), given).serve(), added)


if __name__ == "__main__":
    main()

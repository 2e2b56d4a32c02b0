"""Starting processes from one that has loaded everything already, and forks: the warm parent of this machine.

It is asked over a socket in the state folder, and never needed: without it a process is started in the usual way.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from torch_tasks.errors import TorchError
from torch_tasks.system.files import exclusive, make_folder
from torch_tasks.system.loops import in_background
from torch_tasks.system.processes import Child, Files, Processes, Running
from torch_tasks.system.surroundings import lasting, surroundings

log = logging.getLogger(__name__)

NAME = "warm"
"""Under which the warm parent is recorded."""
SOCKET = "warm.socket"
"""In the folder of the records: where it is asked."""
LENGTH = struct.Struct("!I")
"""Before each question and each answer: how many bytes it has."""
MOST_FILES = 1 + len(Files._fields)
"""That come with a question: those of a process, and the one through which it is told to begin."""
ANSWER_SECONDS = 10.0
"""Longer than it takes to answer everybody who asks at once on a machine that has other work."""
_GRACE_SECONDS = 1.0
LOAD_SECONDS = 20.0
_POLL_SECONDS = 0.02
_PAUSE_SECONDS = 60.0
"""So long nothing is asked of a warm parent after one could not be started."""


PYTHON = (sys.executable, "-P", "-m")
"""How the arguments of whatever it forks begin; then comes the name of a module."""


class NotForked(TorchError):
    """The warm parent does not fork for this process."""


class WarmParent:
    """This machine's warm parent, for its clients. It is started when it is first needed, and again when it died."""

    def __init__(self, run_dir: Path, program: Sequence[str], log: Path) -> None:
        self._socket = run_dir / SOCKET
        self._processes = Processes(run_dir)
        self._lock = run_dir / f"{NAME}.lock"
        self._program = program
        self._log = log
        self._not_before = 0.0
        self._starting = threading.Lock()

    def begin(self, environment: Mapping[str, str]) -> None:
        """Have it load meanwhile, if none runs."""
        in_background("warm parent", partial(self._prepare, environment))

    def fork(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, files: Files) -> Child | None:
        """A child that runs a module of this Python, with these files; None if there is none."""
        if tuple(argv[: len(PYTHON)]) != PYTHON:
            return None
        try:
            mine = surroundings(environment)
            question = {"do": "fork", "argv": list(argv), "environment": dict(environment), "cwd": str(cwd)}
            question["surroundings"] = mine
            try:
                return self._fork(question, files)
            except (OSError, NotForked) as error:
                if isinstance(error, TimeoutError):  # it hangs: this start waits no longer, the next one finds another
                    self.stop(_GRACE_SECONDS)
                    raise
                self._have_one(environment, mine)
                return self._fork(question, files)
        except (OSError, ValueError, TorchError) as error:
            log.warning("%s: started without the warm parent: %s", " ".join(argv[len(PYTHON) :]), error)
            return None

    def _fork(self, question: Mapping[str, Any], files: Files) -> Child:
        given, go = os.pipe()
        try:
            forked = self._ask(question, (given, *files))
            return Child(forked["pid"], forked["create_time"], go)
        except BaseException:
            os.close(go)  # one whose answer was lost ends now
            raise
        finally:
            os.close(given)

    def exit_code(self, ended: Running | Child) -> int | None:
        """With which code a process that it had forked has ended; None if it does not know."""
        with suppress(OSError, ValueError, TorchError):
            code: int | None = self._ask({"do": "tell", "pid": ended.pid, "create_time": ended.create_time})["code"]
            return code
        return None

    def stop(self, grace: float) -> None:
        """End it; what it has forked goes on."""
        with exclusive(self._lock):
            self._processes.stop(NAME, grace)

    # ── having one ───────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self, environment: Mapping[str, str]) -> None:
        try:
            self._have_one(environment, surroundings(environment))
        except (OSError, ValueError, TorchError) as error:
            log.warning("no warm parent: %s", error)

    def _have_one(self, environment: Mapping[str, str], mine: Mapping[str, str]) -> None:
        """Have one run that forks for this process. Of several who need it, one starts it; NotForked if that fails."""
        with self._starting:
            if time.monotonic() < self._not_before:
                raise NotForked("none could be started shortly before")
            make_folder(self._lock.parent)
            with exclusive(self._lock):
                if not (why := self._why_not(mine)):
                    return
                if self._processes.stop(NAME, _GRACE_SECONDS):
                    log.info("the warm parent is replaced: %s", why)
                try:
                    self._start(environment)
                except BaseException:
                    self._not_before = time.monotonic() + _PAUSE_SECONDS
                    raise

    def _why_not(self, mine: Mapping[str, str]) -> str:
        """Why it would not fork for this process; empty if it would."""
        try:
            return str(self._ask({"do": "compare", "surroundings": mine})["why_not"])
        except (OSError, ValueError) as error:
            return f"it does not answer ({error})"

    def _start(self, environment: Mapping[str, str]) -> None:
        argv = [*self._program, str(self._socket)]
        running = self._processes.start(NAME, argv, log=self._log, env=lasting(environment))
        deadline = time.monotonic() + LOAD_SECONDS
        while running.alive and time.monotonic() < deadline:
            with suppress(OSError), self._connected():
                log.info("warm parent started, pid %d", running.pid)
                return
            time.sleep(_POLL_SECONDS)
        happened = "takes too long to load" if running.alive else "has ended before it was ready"
        raise NotForked(f"the warm parent {happened}: {running.last_words() or '(it said nothing)'}")

    # ── asking it ────────────────────────────────────────────────────────────────────────────────────────────────

    def _connected(self) -> socket.socket:
        """A connection to it; OSError if none listens. Only this user can have put a socket there: see its folder."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(self._socket))
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, question: Mapping[str, Any], files: Sequence[int] = ()) -> dict[str, Any]:
        with self._connected() as connection:
            send(connection, question, files)
            answer, _ = receive(connection)
        if "refused" in answer:
            raise NotForked(answer["refused"])
        return answer


def send(connection: socket.socket, what: Mapping[str, Any], files: Sequence[int] = ()) -> None:
    """One question or answer, with open files."""
    text = json.dumps(what).encode()
    socket.send_fds(connection, [LENGTH.pack(len(text))], list(files))
    connection.sendall(text)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One question or answer with its files, which are the caller's to close; ConnectionError if it is cut off."""
    head, files, *_ = socket.recv_fds(connection, LENGTH.size, MOST_FILES)
    try:
        (length,) = LENGTH.unpack(head)
        with connection.makefile("rb") as stream:
            return json.loads(_whole(stream.read(length), length)), files
    except BaseException as error:
        for file in files:
            os.close(file)
        if isinstance(error, struct.error):
            raise ConnectionError("it was cut off") from None
        raise


def _whole(text: bytes, length: int) -> bytes:
    if len(text) < length:
        raise ConnectionError("it was cut off")
    return text

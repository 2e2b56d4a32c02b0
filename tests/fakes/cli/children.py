"""Programs that the fake agent runs: its tools and its hooks."""

from __future__ import annotations

import contextlib
import os
import signal


class Child:
    """A shell command in a process group of its own. Its input is given, its output kept; it never blocks the agent."""

    def __init__(self, command: str, given: str) -> None:
        source = os.memfd_create("input")
        with open(source, "wb", closefd=False) as file:
            file.write(given.encode(errors="replace"))
        os.lseek(source, 0, os.SEEK_SET)
        self._output = os.memfd_create("output")
        streams = [(os.POSIX_SPAWN_DUP2, old, new) for old, new in ((source, 0), (self._output, 1), (self._output, 2))]
        self.pid = os.posix_spawn(
            "/bin/sh", ["sh", "-c", command], os.environ, file_actions=streams, setpgroup=0, setsigdef=_CAUGHT
        )
        os.close(source)
        self._pidfd = os.pidfd_open(self.pid)
        self.code: int | None = None

    def fileno(self) -> int:
        """What select watches: readable once the child has ended."""
        return self._pidfd

    def collect(self) -> int:
        """Its exit code, now that it has ended."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._pidfd)
        return self.code

    @property
    def output(self) -> str:
        """What it has printed."""
        size = os.fstat(self._output).st_size
        return os.pread(self._output, size, 0).decode(errors="replace")

    def kill(self) -> None:
        """End it, with all of its group."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Let go of its output."""
        os.close(self._output)


_CAUGHT = (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)

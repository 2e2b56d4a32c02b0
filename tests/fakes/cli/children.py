"""Programs that the fake agent runs: its tools and its hooks."""

from __future__ import annotations

import contextlib
import os
import signal

_CAUGHT = (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)


class Child:
    """A shell command in a process group of its own. Its input is given, its output kept; it never blocks the agent."""

    def __init__(self, command: str, given: str) -> None:
        source = os.memfd_create("input")
        with open(source, "wb") as file:  # noqa: PTH123
            file.write(given.encode(errors="replace"))
            file.flush()
            file.seek(0)
            self._kept = os.memfd_create("output")
            streams = [(os.POSIX_SPAWN_DUP2, old, new) for old, new in ((source, 0), (self._kept, 1), (self._kept, 2))]
            self.pid = os.posix_spawn(
                "/bin/sh", ["sh", "-c", command], os.environ, file_actions=streams, setpgroup=0, setsigdef=_CAUGHT
            )
        self._pidfd = os.pidfd_open(self.pid)
        self.code: int | None = None
        self.output = ""

    def fileno(self) -> int:
        """What select watches: readable once the child has ended."""
        return self._pidfd

    def collect(self) -> int:
        """Its exit code, now that it has ended; its output is known too."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._pidfd)
            self.output = os.pread(self._kept, os.fstat(self._kept).st_size, 0).decode(errors="replace")
            os.close(self._kept)
        return self.code

    def kill(self) -> None:
        """End it, with all of its group."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

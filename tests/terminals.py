"""A person's terminal, in which ``torch-tasks`` runs."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping

from machine import TORCH_TASKS


class Terminal:
    """A person's terminal, in which ``torch-tasks`` runs."""

    def __init__(self, env: Mapping[str, str], *words: str, rows: int = 51, columns: int = 200) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        own = {**env, "TERM": "xterm-256color"}
        # `setsid --ctty` makes it the terminal of a session of its own, as a login does.
        argv = ["setsid", "--ctty", "--wait", TORCH_TASKS, *words]
        self.process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=own)
        os.close(theirs)
        self.text = ""

    def see(self, text: str, seconds: float = 20) -> None:
        """Wait until the text was printed."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} is not on the terminal:\n{self.text}"
            if select.select([self._ours], [], [], left)[0]:
                self.text += self._read()

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65536).decode(errors="replace")
        except OSError as error:  # nobody has the terminal open any more
            raise AssertionError(f"the command has ended; it had printed:\n{self.text}") from error

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._ours, text.encode())

    def close(self) -> None:
        """End the command if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

"""A person who looks at a pane: a terminal of their own, attached to a tmux server, with keys to press."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from waiting import until


class Person:
    """A person who is attached during the block."""

    def __init__(
        self,
        *words: str,
        socket: Path | None = None,
        env: Mapping[str, str] = os.environ,
        size: tuple[int, int] = (50, 200),
    ) -> None:
        self._server = ["tmux", *(["-S", str(socket)] if socket else [])]
        self._env = {**env, "TERM": "xterm-256color"}
        self._keys, self._terminal = pty.openpty()
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        self._client = subprocess.Popen(
            [*self._server, "attach-session", *words],
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            env=self._env,
            start_new_session=True,
        )
        # tmux draws there, and would wait if it were not read.
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        until(lambda: str(self._client.pid) in self._ask("#{client_pid}"), "the person is attached")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.kill()
        self._client.wait()
        os.close(self._terminal)  # ends the reader, which closes the other end

    def press(self, keys: str) -> None:
        """Press these keys; return when tmux has read them."""
        os.write(self._keys, keys.encode())
        until(lambda: self._unread() == 0, "tmux has the keys")

    def _unread(self) -> int:
        """How many of the keys tmux has not read yet."""
        return int(struct.unpack("i", fcntl.ioctl(self._terminal, termios.FIONREAD, bytes(4)))[0])

    def _ask(self, what: str) -> list[str]:
        argv = [*self._server, "list-clients", "-F", what]
        done = subprocess.run(argv, capture_output=True, text=True, env=self._env, check=False, timeout=10)
        return done.stdout.split()

    def _read(self) -> None:
        try:
            while os.read(self._keys, 65536):
                pass
        except OSError:
            pass
        os.close(self._keys)

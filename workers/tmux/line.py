"""The terminal line of a pane, as the kernel has it: who may type, how it is read, what nobody has read yet."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch_tasks.errors import AgentUnavailable, NotDelivered

LONGEST = 4095
"""So many bytes of a line a reader of lines gets; the kernel drops the rest."""

_POLL = 0.02


class Line:
    """The open terminal line of a pane's program."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @property
    def canonical(self) -> bool:
        """The program reads whole lines, which the kernel edits and cuts."""
        return bool(self._flags & termios.ICANON)

    @property
    def echoes(self) -> bool:
        """The kernel shows what is typed."""
        return bool(self._flags & termios.ECHO)

    @property
    def unread(self) -> int:
        """The bytes that wait for the program to read them; of readers of lines, only what is whole lines."""
        answer = fcntl.ioctl(self._handle, termios.FIONREAD, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])

    @property
    def _flags(self) -> int:
        flags: int = termios.tcgetattr(self._handle)[3]
        return flags


@contextmanager
def held(path: str, seconds: float) -> Iterator[Line]:
    """The line at this path, for one sender at a time; the lock is on the line itself, and ends with its holder."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise AgentUnavailable(f"the pane's terminal {path} cannot be opened: {error.strerror}") from None
    try:
        _lock(handle, path, seconds)
        yield Line(handle)
    finally:
        os.close(handle)


def _lock(handle: int, path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise NotDelivered(
                    f"another sender has been typing into the pane ({path}) for {seconds:g} s; nothing was sent"
                ) from None
            time.sleep(_POLL)
        else:
            return

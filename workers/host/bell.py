"""The bell: how whatever runs in an agent's pane wakes the agent worker, without anybody polling.

What happened is always written to a file first; the bell, a FIFO, only says "look". A bell that nobody hears costs
nothing: whoever comes next looks at the files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


class Bell:
    """One agent's bell, heard by one process."""

    def __init__(self, path: Path, on_ring: Callable[[], None]) -> None:
        if not path.is_fifo():
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        self.path = path
        self._on_ring = on_ring
        self._rung = threading.Event()
        self._closed = False
        # Opened for both, so that there is always a reader and a writer: neither side ever blocks or sees an end.
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._listen, name=f"bell {path}", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Wake whoever waits, unless the bell is closed. Safe to call from a signal handler."""
        if not self._closed:
            os.write(self._fd, b".")

    def wait(self, timeout: float) -> None:
        """Return when the bell was rung since the last wait, or after ``timeout`` seconds."""
        self._rung.wait(timeout)
        self._rung.clear()

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        os.write(self._fd, b".")
        self._thread.join()
        os.close(self._fd)

    def _listen(self) -> None:
        while os.read(self._fd, 4096):
            if self._closed:
                return
            self._rung.set()
            self._on_ring()

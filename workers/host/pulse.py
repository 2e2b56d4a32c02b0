"""The pulse of an agent worker: how its node worker sees that it is not stopped or hung, broker or no broker."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path


class Pulse:
    """A file that a living process touches at intervals."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "pulse"

    def start(self, interval: float) -> None:
        """Beat from now on, as long as this process lives."""
        threading.Thread(target=self._beat, args=(interval,), name="pulse", daemon=True).start()

    def silence(self) -> float:
        """Seconds since the last beat; none if there never was one."""
        # Written and read as the time since the machine started, which nobody sets anew.
        try:
            return time.monotonic() - float(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return 0.0

    def _beat(self, interval: float) -> None:
        file = None
        while True:
            with suppress(OSError):  # a full disk is no reason to die, and not to be killed for
                file = file or self._file.open("wb", buffering=0)
                os.pwrite(file.fileno(), f"{time.monotonic():020.6f}".encode(), 0)
            time.sleep(interval)

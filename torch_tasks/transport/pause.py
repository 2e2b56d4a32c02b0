"""A pause: while it lasts, this process takes no more messages; what it holds it keeps."""

from __future__ import annotations

import time


class Pause:
    """The pause of this process, if there is one."""

    def __init__(self) -> None:
        self._until = 0.0

    def last(self, seconds: float) -> None:
        """From now on, for so long; what was said before does not count any more."""
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until it is over."""
        return max(0.0, self._until - time.monotonic())


pause = Pause()
"""There is one for all channels of a process, as there is one agent."""

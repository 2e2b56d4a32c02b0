"""A pause: while it lasts, this process takes no more messages; what it holds it keeps."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pause:
    """The pause of this process, if there is one."""

    def __init__(self) -> None:
        self._until = 0.0
        self._reasons: list[Callable[[], bool]] = []

    def last(self, seconds: float) -> None:
        """From now on, for so long; what was said before does not count any more."""
        self._until = time.monotonic() + seconds

    def while_so(self, reason: Callable[[], bool]) -> None:
        """Also whenever this is so; it is asked before each message, and several times a second meanwhile."""
        self._reasons.append(reason)

    @property
    def left(self) -> float:
        """Seconds until the time that was set is over."""
        return max(0.0, self._until - time.monotonic())

    @property
    def on(self) -> bool:
        """No message is taken now."""
        return self.left > 0 or any(reason() for reason in self._reasons)


pause = Pause()
"""There is one for all channels of a process, as there is one agent."""

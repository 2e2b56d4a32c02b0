"""An agent that goes round in circles: what its pane shows brings nothing new, look after look."""

from __future__ import annotations

import re
import time

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import FailureKind
from torch_tasks.workers.programs.kind import AgentKind, StateReading
from torch_tasks.workers.tmux.pane import AgentPane

#: The same, seen so often in a row, is a standstill.
_LOOKS = 3
_HISTORY = 200
#: What ticks while nothing happens: counters, spinners, the hint how to interrupt.
_TICKING = re.compile(r"interrupt|cancel|[Rr]etrying|tokens")


class Standstill:
    """Looks at one agent's pane at intervals while it works on a task."""

    def __init__(self, kind: AgentKind, seconds: float) -> None:
        self._watched = kind.is_conversational and seconds > 0
        self._seconds = seconds
        self._interval = seconds / _LOOKS
        self._next = time.monotonic() + self._interval
        self._last: frozenset[str] = frozenset()
        self._same = 0

    def seen(self, pane: AgentPane, reading: StateReading | None) -> tuple[FailureKind, str] | None:
        """Why the agent should be interrupted, if nothing new has come for so long."""
        if not self._watched or time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + self._interval
        if reading is None or reading.state is not AgentState.WORKING:
            self._same = 0
            return None
        lines = _content(pane.screen(_HISTORY))
        # Output that repeats itself adds lines, and none that is new.
        self._same = self._same + 1 if lines <= self._last else 0
        self._last = lines
        if self._same < _LOOKS:
            return None
        message = f"no progress: nothing new in its pane for {self._seconds:g} s (TORCH_STALLED_SECONDS)"
        return FailureKind.LOOPING, message


def _content(screen: str) -> frozenset[str]:
    letters = (re.sub(r"[\W\d_]+", " ", line).strip() for line in screen.splitlines() if not _TICKING.search(line))
    return frozenset(line for line in letters if line)

"""Whether the server can serve now, and if not, why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from torch_tasks.errors import TorchError
from torch_tasks.fleet import fleet

_FRESH_SECONDS = 1.0


class ServerReadiness:
    """Looks at the broker, and whether its events are read, at most once a second, however often it is asked."""

    def __init__(self, events_trouble: Callable[[], str]) -> None:
        self._events_trouble = events_trouble
        self._looking = threading.Lock()
        self._looked = -_FRESH_SECONDS
        self._lacks: list[str] = []

    def lacks(self) -> list[str]:
        """What keeps it from serving; empty if nothing does."""
        with self._looking:
            if time.monotonic() - self._looked >= _FRESH_SECONDS:
                self._lacks = self._look()
                self._looked = time.monotonic()
            return self._lacks

    def _look(self) -> list[str]:
        try:
            fleet().client.ping()
            if not fleet().gate.state().open:
                return ["the broker was restarted, and the fleet is restoring what it forgot"]
        except TorchError as error:
            return [str(error)]
        trouble = self._events_trouble()
        return [f"the fleet's events are not read: {trouble}"] if trouble else []

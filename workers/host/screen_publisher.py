"""An agent's screen for those who watch it from other machines: published while it is watched, and no longer."""

from __future__ import annotations

import threading
import time

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.monitoring.screens import LOOK_SECONDS, PIECE_BYTES, WATCHED_SECONDS
from torch_tasks.system.loops import Loop
from torch_tasks.workers.host.terminal import Terminal


class ScreenPublisher:
    """One agent's screen. However many watch, it is looked at by one thread, at most twice a second."""

    def __init__(self, agent_id: str, terminal: Terminal, fleet: Fleet) -> None:
        self._key = keys.screen(agent_id)
        self._terminal = terminal
        self._fleet = fleet
        self._until = 0.0
        self._anew = threading.Event()
        self._shown: str | None = None
        self._starting = threading.Lock()
        self._loop: Loop | None = None

    def publish_for_a_while(self) -> None:
        """Somebody watches, for a while from now, and has seen nothing yet."""
        with self._starting:
            self._until = time.monotonic() + WATCHED_SECONDS
            self._anew.set()
            if self._loop is None:
                self._loop = Loop(
                    "screen",
                    self._show,
                    pause=LOOK_SECONDS,
                    until=self._is_unwatched,
                    longest_retry_seconds=LOOK_SECONDS,
                )
                self._loop.start()
            self._loop.wake()

    def _show(self) -> None:
        if self._anew.is_set():
            self._anew.clear()
            self._shown = None
        screen = self._look()
        if screen != self._shown:
            self._fleet.client.publish(self._key, screen)
            self._shown = screen

    def _is_unwatched(self) -> bool:
        with self._starting:
            if time.monotonic() < self._until:
                return False
            self._loop = None
            return True

    def _look(self) -> str:
        screen = self._terminal.pane.screen() if self._terminal.alive else "(the program has ended)"
        return screen.encode()[-PIECE_BYTES:].decode(errors="ignore")

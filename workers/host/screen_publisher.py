"""What people on other machines see of an agent's pane while they watch it."""

from __future__ import annotations

import threading
import time

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.monitoring.screens import LOOK_SECONDS, PIECE_BYTES, WATCHED_SECONDS
from torch_tasks.system.loops import Loop
from torch_tasks.workers.host.terminal import Terminal


class ScreenPublisher:
    """Publishes one agent's screen: one thread reads it, at most twice a second, however many people watch."""

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
        """Publish the whole screen now, and each change for a while."""
        with self._starting:
            self._until = time.monotonic() + WATCHED_SECONDS
            self._anew.set()
            if self._loop is None:
                until, pause = self._is_unwatched, LOOK_SECONDS
                self._loop = Loop("screen", self._show, pause=pause, until=until, longest_retry_seconds=pause)
                self._loop.start()
            self._loop.wake()

    def _show(self) -> None:
        if self._anew.is_set():
            self._anew.clear()
            self._shown = None
        screen = self._terminal.pane.screen() if self._terminal.is_alive else "(the program has ended)"
        piece = screen.encode()[-PIECE_BYTES:].decode(errors="ignore")
        if piece != self._shown:
            self._fleet.client.publish(self._key, piece)
            self._shown = piece

    def _is_unwatched(self) -> bool:
        with self._starting:
            if time.monotonic() < self._until:
                return False
            self._loop = None
            return True

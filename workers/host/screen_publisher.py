"""An agent's screen for those who watch it from other machines: published while it is watched, and no longer."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import redis

from torch_tasks import keys
from torch_tasks.errors import BrokerUnreachable, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.monitoring.screens import LOOK_SECONDS, PIECE_BYTES, WATCHED_SECONDS
from torch_tasks.workers.host.terminal import Terminal

log = logging.getLogger(__name__)


class ScreenPublisher:
    """One agent's screen. However many watch, it is looked at by one thread, at most twice a second."""

    def __init__(self, agent_id: str, terminal: Terminal, fleet: Fleet) -> None:
        self._key = keys.screen(agent_id)
        self._terminal = terminal
        self._fleet = fleet
        self._until = 0.0
        self._anew = threading.Event()
        self._starting = threading.Lock()
        self._running = False

    def publish_for_a_while(self) -> None:
        """Somebody watches, for a while from now, and has seen nothing yet."""
        with self._starting:
            self._until = time.monotonic() + WATCHED_SECONDS
            self._anew.set()
            if not self._running:
                self._running = True
                threading.Thread(target=self._show, name="screen", daemon=True).start()

    def _show(self) -> None:
        last: str | None = None
        while self._is_watched():
            if self._anew.is_set():
                self._anew.clear()
                last = None
            with contextlib.suppress(TorchError, redis.RedisError, BrokerUnreachable):
                screen = self._look()
                if screen != last:
                    self._fleet.client.publish(self._key, screen)
                    last = screen
            self._anew.wait(LOOK_SECONDS)

    def _is_watched(self) -> bool:
        with self._starting:
            self._running = time.monotonic() < self._until
            return self._running

    def _look(self) -> str:
        screen = self._terminal.pane.screen() if self._terminal.alive else "(the program has ended)"
        return screen.encode()[-PIECE_BYTES:].decode(errors="ignore")

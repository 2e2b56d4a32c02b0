"""What people elsewhere see of an agent's pane."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.model.drawn_screen import DrawnScreen
from torch_tasks.monitoring.screens import DRAWN_BYTES, LOOK_SECONDS, PIECE_BYTES, WATCHED_SECONDS
from torch_tasks.system.loops import Loop
from torch_tasks.workers.host.terminal import Terminal
from torch_tasks.workers.programs.kind import AgentKind

ENDED = "(the program has ended)"
TYPED_SECONDS = 0.1
"""How often the pane is looked at while a person types into it from elsewhere."""


@dataclass
class _View:
    """One form in which the screen is published."""

    channel: str
    take: Callable[[], str]
    until: float = 0.0
    shown: str | None = None

    @property
    def is_watched(self) -> bool:
        return time.monotonic() < self.until


class ScreenPublisher:
    """Publishes one agent's screen: one thread reads it, at most twice a second, however many people watch."""

    def __init__(self, kind: AgentKind, terminal: Terminal, fleet: Fleet) -> None:
        self._kind = kind
        self._terminal = terminal
        self._fleet = fleet
        self._text = _View(keys.screen(kind.agent_id), self._as_text)
        self._drawn = _View(keys.drawn_screen(kind.agent_id), self._as_drawn)
        self._anew = threading.Event()
        self._starting = threading.Lock()
        self._loop: Loop | None = None

    def publish_for_a_while(self, *, drawn: bool = False) -> None:
        """Publish the whole screen now, and each change for a while: as text, or as rows ``drawn`` with colours."""
        with self._starting:
            view = self._drawn if drawn else self._text
            view.until = time.monotonic() + WATCHED_SECONDS
            self._anew.set()
            if self._loop is None:
                self._loop = Loop("screen", self._show, until=self._is_unwatched, longest_retry_seconds=LOOK_SECONDS)
                self._loop.start()
            self._loop.wake()

    def look_now(self) -> None:
        """Something was typed: those who watch see it at once."""
        with self._starting:
            if self._loop is not None:
                self._loop.wake()

    def above(self, lines: int, skipped: int) -> DrawnScreen:
        """Rows from above the screen, without the ``skipped`` ones right above it."""
        pane = self._terminal.pane
        look = pane.look()
        return _draw(pane.drawn_above(lines, skipped), look.width if look else 1)

    def explain(self) -> list[tuple[str, str]]:
        """What the program is doing, by each source, the decisive one first."""
        return self._kind.explain(self._terminal.pane)

    def _show(self) -> float:
        """Returns after how many seconds to look again."""
        views = (self._text, self._drawn)
        if self._anew.is_set():
            self._anew.clear()
            self._text.shown = self._drawn.shown = None
        for view in views:
            if view.is_watched and (piece := view.take()) != view.shown:
                self._fleet.client.publish(view.channel, piece)
                view.shown = piece
        return TYPED_SECONDS if self._terminal.keyboard.person else LOOK_SECONDS

    def _as_text(self) -> str:
        screen = self._terminal.pane.screen() if self._terminal.is_alive else ENDED
        return screen.encode()[-PIECE_BYTES:].decode(errors="ignore")

    def _as_drawn(self) -> str:
        look = self._terminal.pane.look() if self._terminal.is_alive else None
        if look is None:
            return _draw([ENDED], len(ENDED)).model_dump_json()
        cursor = (look.cursor_x, look.cursor_y) if look.cursor_shown and not look.in_mode else None
        rows = self._terminal.pane.drawn()
        screen = _draw(rows + [""] * (look.height - len(rows)), look.width, cursor)
        return within(screen, DRAWN_BYTES)

    def _is_unwatched(self) -> bool:
        with self._starting:
            if self._text.is_watched or self._drawn.is_watched:
                return False
            self._loop = None
            return True


def within(screen: DrawnScreen, most: int) -> str:
    """The screen as it is published; one that is too long for that, without its colours."""
    text = screen.model_dump_json()
    return text if len(text) <= most else screen.plain.model_dump_json()


def _draw(lines: Iterable[str], columns: int, cursor: tuple[int, int] | None = None) -> DrawnScreen:
    from torch_tasks.monitoring.drawing import draw  # 25 ms, for a screen that is watched in colours

    return draw(lines, columns, cursor)

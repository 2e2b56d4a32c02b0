"""The terminals that windows show, as the rows that changed; each is read once for all windows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from torch_tasks.model.drawn_screen import DrawnScreen
from torch_tasks.monitoring.screens import ScreenFeed
from torch_tasks.server.console.pane_rows import thumb, whole_screen

#: No window gets more often what changed.
_SOONEST_SECONDS, _THUMB_SECONDS = 0.1, 1.0
_EACH_SECONDS = 0.02
"""Many small pictures come more seldom, so that drawing them does not take the browser's time."""


@dataclass
class _ShownPane:
    """One terminal as it was seen last."""

    columns: int = 80
    whole: list[str] = field(default_factory=list)
    thumb: list[str] = field(default_factory=list)
    trouble: str = ""
    is_seen: bool = False


@dataclass
class _PaneWindow:
    """One window, and what it has of each terminal."""

    agents: frozenset[str]
    is_small: bool
    news: asyncio.Event = field(default_factory=asyncio.Event)
    rows: dict[str, list[str]] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)

    def events(self, panes: dict[str, _ShownPane]) -> bytes:
        """What is new for this window."""
        return b"".join(filter(None, (self._event(agent, panes[agent]) for agent in sorted(self.agents))))

    def _event(self, agent: str, pane: _ShownPane) -> bytes | None:
        rows, had = pane.thumb if self.is_small else pane.whole, self.rows.get(agent)
        if (rows is had or not pane.is_seen) and pane.trouble == self.troubles.get(agent, ""):
            return None
        before = had or []
        changed = {at: row for at, row in enumerate(rows) if at >= len(before) or row != before[at]}
        self.troubles[agent] = pane.trouble
        if pane.is_seen:
            self.rows[agent] = rows
        told = {"agent": agent, "columns": pane.columns, "count": len(rows), "rows": changed, "trouble": pane.trouble}
        return f"event: pane\ndata: {json.dumps(told, ensure_ascii=False)}\n\n".encode()


class PaneHub:
    """Has each terminal that somebody looks at read once, and gives every window what changed since it last got it."""

    def __init__(self) -> None:
        self._panes: dict[str, _ShownPane] = {}
        self._windows: list[_PaneWindow] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._feed = ScreenFeed(self._on_screen, self._on_trouble)

    async def stream(
        self, agents: frozenset[str], holds: Callable[[], bool], *, is_small: bool
    ) -> AsyncGenerator[bytes, None]:
        """What one window gets while its login holds: all rows at first, then those that changed."""
        window = _PaneWindow(agents, is_small)
        self._loop = asyncio.get_running_loop()
        self._windows.append(window)
        self._watch()
        try:
            while holds():
                if text := window.events(self._panes):
                    yield text
                await asyncio.sleep(max(_THUMB_SECONDS, len(agents) * _EACH_SECONDS) if is_small else _SOONEST_SECONDS)
                await window.news.wait()
                window.news.clear()
        finally:
            self._windows.remove(window)
            self._watch()

    def _watch(self) -> None:
        """Have those read that a window shows, and forget the others."""
        wanted = frozenset[str]().union(*(window.agents for window in self._windows))
        self._panes = {agent: self._panes.get(agent) or _ShownPane() for agent in wanted}
        self._feed.watch(wanted)

    # ── called by the feed's thread ──────────────────────────────────────────────────────────────────────────────

    def _on_screen(self, agent: str, screen: DrawnScreen) -> None:
        whole, small = whole_screen(screen), thumb(screen)
        self._tell(agent, lambda pane: _show(pane, screen.columns, whole, small))

    def _on_trouble(self, agent: str, trouble: str) -> None:
        self._tell(agent, lambda pane: _trouble(pane, trouble))

    def _tell(self, agent: str, change: Callable[[_ShownPane], bool]) -> None:
        assert self._loop
        self._loop.call_soon_threadsafe(self._change, agent, change)

    def _change(self, agent: str, change: Callable[[_ShownPane], bool]) -> None:
        pane = self._panes.get(agent)
        if pane and change(pane):
            for window in self._windows:
                if agent in window.agents:
                    window.news.set()


def _show(pane: _ShownPane, columns: int, whole: list[str], small: list[str]) -> bool:
    if pane.is_seen and (pane.columns, pane.whole) == (columns, whole):
        return False
    pane.columns, pane.whole, pane.is_seen = columns, whole, True
    if small != pane.thumb:
        pane.thumb = small
    return True


def _trouble(pane: _ShownPane, trouble: str) -> bool:
    before, pane.trouble = pane.trouble, trouble
    return before != trouble

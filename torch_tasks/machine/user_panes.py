"""The panes of the user's own tmux server, and which one a target names; ``workers`` has what talks to tmux."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch_tasks.errors import PaneNotFound
from torch_tasks.model.near import did_you_mean
from torch_tasks.started_by_name import USER_TMUX, load


@dataclass(frozen=True)
class UserPane:
    """One pane, with its window and session."""

    pane_id: str
    session: str
    attached: bool
    """Whether a terminal shows its session."""
    window_id: str
    window: int
    window_name: str
    window_active: bool
    window_panes: int
    layout: str
    index: int
    active: bool

    @property
    def place(self) -> str:
        """How messages name the pane."""
        return f"{self.session}:{self.window}.{self.index} ({self.pane_id})"


class UserTmux(Protocol):
    """The user's own tmux server, found as tmux finds it."""

    place: str
    """Its socket."""

    def panes(self) -> list[UserPane]:
        """Every pane of every session; empty if no server runs."""

    def server_pid(self) -> int | None:
        """The process of the server, or None: ids of panes mean something only on the server that gave them."""

    def content(self, pane: UserPane, lines: int) -> str:
        """The last lines that the pane has shown, without blank ones at the end."""

    def stage(self, pane: UserPane, text: str) -> None:
        """Put the text into the program's input, without Enter."""

    def deliver(self, pane: UserPane, text: str) -> None:
        """Put the text into the program's input, press Enter, and return when the program has taken it."""

    def press(self, pane: UserPane, key: str) -> None:
        """Press one key, by its tmux name."""


def user_tmux(socket: str | None = None) -> UserTmux:
    """The caller's own server, or the one at this socket."""
    tmux: UserTmux = load(USER_TMUX)(socket)
    return tmux


def find(tmux: UserTmux, target: str) -> UserPane:
    """The one pane that the target names, or :class:`PaneNotFound`."""
    panes = tmux.panes()
    if not panes:
        raise PaneNotFound(f"no tmux server runs at {tmux.place}, so there is no {target!r}; start the session first")
    return resolve(target, panes)


def resolve(target: str, panes: Sequence[UserPane]) -> UserPane:
    """The pane named by ``session``, ``session:window[.pane]``, ``%3`` or ``@3``, all by whole names or by index."""
    if target[:1] in "%@" and target[1:].isdecimal():
        found = [pane for pane in panes if target == pane.pane_id or (target == pane.window_id and pane.active)]
        if not found:
            raise PaneNotFound(f"there is no {target}; 'tmux list-panes -a' lists the panes")
        return found[0]
    session, colon, rest = target.partition(":")  # tmux lets no session have a colon or a dot in its name
    inside = [pane for pane in panes if pane.session == session.removeprefix("=")]
    if not inside:
        raise PaneNotFound(f"no session {session!r}; {_instead(session, {pane.session for pane in panes})}")
    if not colon or not rest:
        return next(pane for pane in inside if pane.window_active and pane.active)
    return _one(target, _in_window(rest, inside), inside)


def _in_window(rest: str, panes: Sequence[UserPane]) -> list[UserPane]:
    """The panes that the part after the colon may mean: a window, or a window and a pane."""
    found = [pane for pane in _windows(rest, panes) if pane.active]
    window, dot, index = rest.rpartition(".")
    if dot:
        found += [pane for pane in _windows(window, panes) if index in (str(pane.index), pane.pane_id)]
    return found


def _windows(word: str, panes: Sequence[UserPane]) -> list[UserPane]:
    """The panes of the window with this index or id, else of the windows with this name."""
    by_number = [pane for pane in panes if word in (str(pane.window), pane.window_id)]
    return by_number or [pane for pane in panes if pane.window_name == word]


def _one(target: str, found: Sequence[UserPane], panes: Sequence[UserPane]) -> UserPane:
    if len({pane.pane_id for pane in found}) > 1:
        raise PaneNotFound(
            f"{target!r} may be {' or '.join(pane.place for pane in found)}; "
            f"name the pane by its id, as {found[0].pane_id}"
        )
    if not found:
        there = ", ".join(dict.fromkeys(f"{pane.window} ({pane.window_name})" for pane in panes))
        raise PaneNotFound(f"no window or pane {target!r}; session {panes[0].session!r} has the windows {there}")
    return found[0]


def _instead(name: str, names: set[str]) -> str:
    return did_you_mean(name, names, f"there are {', '.join(sorted(names))}")

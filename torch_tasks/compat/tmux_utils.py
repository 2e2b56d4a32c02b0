"""``tmux_utils.py``: the user's tmux sessions as objects and as JSON, with what their panes show."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from torch_tasks.errors import PaneNotFound, TorchError
from torch_tasks.machine.user_panes import UserPane, UserTmux, find, user_tmux
from torch_tasks.system.terminal import visible_output

#: What :meth:`TmuxOrchestrator.send_keys_to_window` presses instead of typing it.
_KEY = re.compile(
    r"(?:[CMS]-)+(?:\S|Enter|Escape|Tab|Space|BSpace|Up|Down|Left|Right|Home|End|PageUp|PageDown|F1?\d)"
    r"|Enter|Escape|Tab|BTab|Space|BSpace|Up|Down|Left|Right|Home|End|PPage|NPage|PageUp|PageDown|PgUp|PgDn|IC|DC"
    r"|F[1-9]|F1[0-2]"
)
_SNAPSHOT_LINES = 10


@dataclass
class TmuxWindow:
    session_name: str
    window_index: int
    window_name: str
    active: bool


@dataclass
class TmuxSession:
    """One session; ``attached`` if at least one terminal shows it."""

    name: str
    windows: list[TmuxWindow]
    attached: bool


class TmuxOrchestrator:
    """The user's tmux server. A missing window raises :class:`PaneNotFound`; ``safety_mode`` asks before typing."""

    def __init__(self) -> None:
        self.safety_mode = True
        self.max_lines_capture = 1000

    def get_tmux_sessions(self) -> list[TmuxSession]:
        """All sessions with their windows; none if no server runs."""
        sessions: dict[str, TmuxSession] = {}
        for pane in _active(user_tmux().panes()):
            session = sessions.setdefault(pane.session, TmuxSession(pane.session, [], pane.attached))
            session.windows.append(TmuxWindow(pane.session, pane.window, pane.window_name, pane.window_active))
        return list(sessions.values())

    def capture_window_content(self, session_name: str, window_index: int, num_lines: int = 50) -> str:
        """The last lines of the window's active pane."""
        tmux = user_tmux()
        return self._content(tmux, find(tmux, f"{session_name}:{window_index}"), num_lines)

    def get_window_info(self, session_name: str, window_index: int) -> dict[str, Any]:
        """The window's properties and content; ``{"error": …}`` if there is no such window."""
        tmux = user_tmux()
        try:
            return self._info(tmux, find(tmux, f"{session_name}:{window_index}"))
        except PaneNotFound as error:
            return {"error": f"Could not get window info: {error}"}

    def send_keys_to_window(self, session_name: str, window_index: int, keys: str, confirm: bool = True) -> bool:
        """Press the key with this tmux name, or else type the text as it is; true if it arrived."""
        return self._send(session_name, window_index, keys, confirm, enter=False)

    def send_command_to_window(self, session_name: str, window_index: int, command: str, confirm: bool = True) -> bool:
        """Type the text as it is and press Enter; true if the program has taken it."""
        return self._send(session_name, window_index, command, confirm, enter=True)

    def get_all_windows_status(self) -> dict[str, Any]:
        """Every window of every session, with its content."""
        tmux = user_tmux()
        sessions: dict[str, dict[str, Any]] = {}
        for pane in _active(tmux.panes()):
            empty = {"name": pane.session, "attached": pane.attached, "windows": []}
            window = {"index": pane.window, "name": pane.window_name, "active": pane.window_active}
            info = {"info": self._info_if_there(tmux, pane)}
            sessions.setdefault(pane.session, empty)["windows"].append(window | info)
        return {"timestamp": datetime.now().isoformat(), "sessions": list(sessions.values())}

    def find_window_by_name(self, window_name: str) -> list[tuple[str, int]]:
        """Session and index of each window whose name contains this text, in any case."""
        return [
            (window.session_name, window.window_index)
            for session in self.get_tmux_sessions()
            for window in session.windows
            if window_name.lower() in window.window_name.lower()
        ]

    def create_monitoring_snapshot(self) -> str:
        """A text for a person or a model: all windows with the last lines of each."""
        status = self.get_all_windows_status()
        parts = [f"Tmux Monitoring Snapshot - {status['timestamp']}\n", "=" * 50, "\n\n"]
        for session in status["sessions"]:
            parts.append(f"Session: {session['name']} ({'ATTACHED' if session['attached'] else 'DETACHED'})\n")
            parts.append("-" * 30 + "\n")
            for window in session["windows"]:
                parts.append(f"  Window {window['index']}: {window['name']}{' (ACTIVE)' if window['active'] else ''}\n")
                parts += _recent(window["info"])
                parts.append("\n")
        return "".join(parts)

    def _send(self, session: str, window: int, keys: str, confirm: bool, *, enter: bool) -> bool:
        if self.safety_mode and confirm and not _confirmed(keys, session, window):
            return False
        tmux = user_tmux()
        try:
            pane = find(tmux, f"{session}:{window}")
            if enter:
                tmux.deliver(pane, keys)
            elif _KEY.fullmatch(keys):
                tmux.press(pane, keys)
            else:
                tmux.stage(pane, keys)
        except TorchError as error:
            print(f"Error sending keys: {error}", file=sys.stderr)  # noqa: T201 - as the original
            return False
        return True

    def _info_if_there(self, tmux: UserTmux, pane: UserPane) -> dict[str, Any]:
        try:
            return self._info(tmux, pane)
        except TorchError as error:  # it was closed meanwhile
            return {"error": f"Could not get window info: {error}"}

    def _info(self, tmux: UserTmux, pane: UserPane) -> dict[str, Any]:
        return {
            "name": pane.window_name,
            "active": pane.window_active,
            "panes": pane.window_panes,
            "layout": pane.layout,
            "content": self._content(tmux, pane, 50),
        }

    def _content(self, tmux: UserTmux, pane: UserPane, lines: int) -> str:
        return tmux.content(pane, min(lines, self.max_lines_capture))


def _active(panes: list[UserPane]) -> list[UserPane]:
    """The active pane of each window."""
    return [pane for pane in panes if pane.active]


def _recent(info: dict[str, Any]) -> list[str]:
    if "content" not in info:
        return []
    lines = info["content"].splitlines()[-_SNAPSHOT_LINES:]
    return ["    Recent output:\n", *(f"    | {line}\n" for line in lines if line.strip())]


def _confirmed(keys: str, session: str, window: int) -> bool:
    print(f"SAFETY CHECK: About to send '{keys}' to {session}:{window}")  # noqa: T201 - as the original
    try:
        answer = input("Confirm? (yes/no): ")
    except EOFError:  # no person is there to ask
        answer = ""
    if answer.strip().lower() == "yes":
        return True
    print("Operation cancelled")  # noqa: T201 - as the original
    return False


@visible_output()
def main() -> int:
    """Print the status of all windows as JSON."""
    try:
        status = TmuxOrchestrator().get_all_windows_status()
    except TorchError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - this is what the program says
        return error.exit_code
    print(json.dumps(status, indent=2))  # noqa: T201 - this is what the program says
    return 0


if __name__ == "__main__":
    sys.exit(main())

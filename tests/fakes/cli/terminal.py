"""The terminal: raw mode, modes and titles, and the part of the screen that is drawn anew."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_KEPT = 500


@dataclass(frozen=True)
class Picture:
    """The lower part of the screen: its lines, the cursor's row and column in them, and the pane's title."""

    lines: Sequence[str]
    cursor: tuple[int, int]
    title: str


class Terminal:
    """Lines that stay, above a picture that is replaced."""

    def __init__(self) -> None:
        self._saved = termios.tcgetattr(0)
        self._kept: deque[str] = deque(maxlen=_KEPT)
        self._new: list[str] = []
        self._shown = Picture((), (0, 0), "")
        self._undo = ""
        self.measure()

    def measure(self) -> None:
        """See how large it is."""
        size = os.get_terminal_size(1)
        self.columns, self.rows = max(size.columns, 20), max(size.lines, 5)

    def open(self, *, alternate: bool) -> None:
        """Take every key as it comes."""
        tty.setraw(0, termios.TCSANOW)
        if alternate:
            self.write("\x1b[?1049h\x1b[H")
            self._undo = "\x1b[?1049l"

    def turn_over(self, *, alternate: bool) -> None:
        """Go to the other screen, or back."""
        self.write("\x1b[?1049h\x1b[H" if alternate else "\x1b[?1049l")

    def frame_pastes(self) -> None:
        """Ask for pastes in frames."""
        self.write("\x1b[?2004h")
        self._undo = "\x1b[?2004l" + self._undo

    def close(self) -> None:
        """Leave it as it was found, the cursor below what was drawn."""
        below = len(self._shown.lines) - 1 - self._shown.cursor[0]
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            self.write((f"\x1b[{below}B" if below > 0 else "") + "\r\n" + self._undo)
            termios.tcsetattr(0, termios.TCSANOW, self._saved)

    def print(self, lines: Sequence[str]) -> None:
        """Lines that stay; they are seen with the next picture."""
        self._new += lines
        self._kept.extend(lines)

    def show(self, picture: Picture, *, anew: bool = False) -> None:
        """Replace the picture; ``anew`` draws all of the screen."""
        if picture == self._shown and not self._new and not anew:
            return
        if anew:
            room = max(self.rows - len(picture.lines), 0)
            before, stays = "\x1b[2J\x1b[H", list(self._kept)[-room:] if room else []
        else:
            up = self._shown.cursor[0]
            before, stays = (f"\r\x1b[{up}A\x1b[J" if up else "\r\x1b[J"), self._new
        if picture.title and picture.title != self._shown.title:
            before = f"\x1b]2;{picture.title}\x07{before}"
        up, right = len(picture.lines) - 1 - picture.cursor[0], picture.cursor[1]
        after = (f"\x1b[{up}A" if up else "") + "\r" + (f"\x1b[{right}C" if right else "")
        self.write(before + "".join(f"{line}\r\n" for line in stays) + "\r\n".join(picture.lines) + after)
        self._new.clear()
        self._shown = picture

    def write(self, text: str) -> None:
        """Write all of it."""
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(1, data) :]

"""The terminal: raw mode, modes and titles, and the part of the screen that is drawn anew."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from collections import deque
from collections.abc import Sequence

_KEPT = 500


class Terminal:
    """Lines that stay, above a block of lines that is replaced at each drawing."""

    def __init__(self) -> None:
        self._saved = termios.tcgetattr(0)
        self._kept: deque[str] = deque(maxlen=_KEPT)
        self._new: list[str] = []
        self._block: Sequence[str] = ()
        self._cursor = (0, 0)
        self._title = ""
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

    def frame_pastes(self) -> None:
        """Ask for pastes in frames."""
        self.write("\x1b[?2004h")
        self._undo = "\x1b[?2004l" + self._undo

    def close(self) -> None:
        """Leave it as it was found, the cursor below what was drawn."""
        below = len(self._block) - 1 - self._cursor[0]
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            self.write((f"\x1b[{below}B" if below > 0 else "") + "\r\n" + self._undo)
            termios.tcsetattr(0, termios.TCSANOW, self._saved)

    def title(self, text: str) -> None:
        """Set the pane's title."""
        if text != self._title:
            self._title = text
            self.write(f"\x1b]2;{text}\x07")

    def print(self, lines: Sequence[str]) -> None:
        """Lines that stay; they are seen at the next drawing."""
        self._new += lines
        self._kept.extend(lines)

    def draw(self, block: Sequence[str], cursor: tuple[int, int]) -> None:
        """Replace the block; the cursor is a row of it and a column."""
        if (block, cursor) == (self._block, self._cursor) and not self._new:
            return
        up = f"\x1b[{self._cursor[0]}A" if self._cursor[0] else ""
        self._put(f"\r{up}\x1b[J", self._new, block, cursor)

    def redraw(self, block: Sequence[str], cursor: tuple[int, int]) -> None:
        """Everything anew."""
        room = max(self.rows - len(block), 0)
        self._put("\x1b[2J\x1b[H", list(self._kept)[-room:] if room else [], block, cursor)

    def _put(self, before: str, kept: Sequence[str], block: Sequence[str], cursor: tuple[int, int]) -> None:
        up = len(block) - 1 - cursor[0]
        after = (f"\x1b[{up}A" if up else "") + "\r" + (f"\x1b[{cursor[1]}C" if cursor[1] else "")
        self.write(before + "".join(f"{line}\r\n" for line in kept) + "\r\n".join(block) + after)
        self._new.clear()
        self._block, self._cursor = block, cursor

    def write(self, text: str) -> None:
        """Write all of it."""
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(1, data) :]

"""The pane of an ``acp`` agent: the stream of the agent's program above, and below it one line for a person to type in.

Nothing of what the program sends steers the terminal. Rows are drawn once and never changed; the last line alone is.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import termios
import textwrap
import unicodedata
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from torch_tasks.visible_text import visible

_ERASED = "\r\x1b[K"
_FRAMED_PASTES, _UNFRAMED_PASTES = "\x1b[?2004h", "\x1b[?2004l"
_MOST_ROWS, _MOST_CHARACTERS = 40, 8_000
"""How much of a prompt, of a diff, of a tool's output or of one piece of a stream is drawn."""


class PaneView:
    """What is drawn in the pane."""

    def __init__(self, out: TextIO, columns: Callable[[], int]) -> None:
        self._out = out
        self._columns = columns
        self._tail = ""
        """The end of the streamed text, which is no whole row yet."""
        self._state = ""
        self._draft = ""

    def show(self, text: str, first: str = "", rest: str | None = None) -> None:
        """Draw the text, its first row behind ``first``, the others behind ``rest`` or as many blanks."""
        self.end_flow()
        rest = " " * len(first) if rest is None else rest
        lines = visible(text).expandtabs().split("\n")
        rows = [row for line in lines for row in self._rows(line, len(first))]
        self._draw([(rest if number else first) + row for number, row in enumerate(rows)])

    def flow(self, text: str) -> None:
        """Draw a piece of streamed text: as many rows of it as are whole."""
        if len(text) > _MOST_CHARACTERS:
            text = shortened(text) + "\n"
        *lines, self._tail = (self._tail + visible(text).expandtabs()).split("\n")
        whole = [row for line in lines for row in self._rows(line)]
        *full, self._tail = self._rows(self._tail, keep_blanks=True)
        if whole or full:
            self._draw([*whole, *full])

    def end_flow(self) -> None:
        """Draw the rest of the streamed text."""
        if self._tail:
            rows, self._tail = self._rows(self._tail), ""
            self._draw(rows)

    def show_input(self, state: str, draft: str) -> None:
        """Draw the last line: what the agent does, and what a person has typed."""
        self._state, self._draft = state, draft
        self._draw([])

    def _rows(self, line: str, indent: int = 0, *, keep_blanks: bool = False) -> list[str]:
        width = max(self._columns() - indent - 1, 20)
        if _width(line) <= width:
            return [line]
        wrapped = textwrap.wrap(line, width, drop_whitespace=not keep_blanks, break_on_hyphens=False)
        return wrapped or [""]

    def _draw(self, rows: list[str]) -> None:
        head = f"[{self._state}] > "
        draft = visible(self._draft.replace("\n", "⏎"))
        room = max(self._columns() - len(head) - 1, 1)
        while _width(draft) > room:
            draft = draft[1:]
        self._out.write(_ERASED + "".join(row + "\n" for row in rows) + head + draft)
        self._out.flush()


def diff_rows(path: str, old: str | None, new: str) -> str:
    """A change of a file, as people read it."""
    rows = list(difflib.unified_diff((old or "").splitlines(), new.splitlines(), path, path, n=2, lineterm=""))
    return shortened("\n".join(rows))


def shortened(text: str) -> str:
    """The beginning of a long text, and how much is left out."""
    rows = text[:_MOST_CHARACTERS].split("\n")[:_MOST_ROWS]
    shown = "\n".join(rows)
    left_out = len(text) - len(shown)
    return f"{shown}\n… and {left_out:,} more characters" if left_out else text


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_PASTE, _PASTE_END = "\x1b[200~", "\x1b[201~"


class LineEditor:
    """The line that a person types: printable characters, pastes, Backspace, C-u, C-c, C-d and Enter."""

    def __init__(self, on_line: Callable[[str], None], on_interrupt: Callable[[], None], on_end: Callable[[], None]):
        self.draft = ""
        self._on_line = on_line
        self._on_end = on_end
        self._on_interrupt = on_interrupt
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._unread = ""
        self._in_paste = False

    def feed(self, typed: bytes) -> None:
        """Take what was typed."""
        self._unread += self._decoder.decode(typed)
        while self._unread:
            if self._unread[0] != "\x1b":
                char, self._unread = self._unread[0], self._unread[1:]
                self._key(char)
            elif _UNFINISHED.match(self._unread):
                return
            else:
                escape = _ESCAPE.match(self._unread)
                end = escape.end() if escape else 1
                if self._unread[:end] in (_PASTE, _PASTE_END):
                    self._in_paste = self._unread[:end] == _PASTE
                self._unread = self._unread[end:]

    def _key(self, char: str) -> None:
        if self._in_paste:
            self.draft += "\n" if char == "\r" else char
            return
        match char:
            case "\r" | "\n":
                line, self.draft = self.draft, ""
                self._on_line(line)
            case "\x7f" | "\x08":
                self.draft = self.draft[:-1]
            case "\x15":
                self.draft = ""
            case "\x03":
                self._on_interrupt()
            case "\x04":
                if not self.draft:
                    self._on_end()
            case _ if char.isprintable():
                self.draft += char


@contextmanager
def keys_one_by_one() -> Iterator[None]:
    """Let the terminal pass on each key as it is typed, C-c included."""
    keyboard = sys.stdin.fileno()
    if not os.isatty(keyboard):
        yield
        return
    before = termios.tcgetattr(keyboard)
    now = termios.tcgetattr(keyboard)
    now[0] &= ~(termios.ICRNL | termios.IXON)
    now[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(keyboard, termios.TCSADRAIN, now)
    sys.stdout.write(_FRAMED_PASTES)
    try:
        yield
    finally:
        sys.stdout.write(_UNFRAMED_PASTES)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

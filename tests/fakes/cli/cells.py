"""Text in the cells of a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

TAB = "    "
_INVISIBLE = {"Mn", "Me", "Cf"}


def visible(text: str) -> str:
    """One line of it that a terminal prints and does not obey."""
    if text.isprintable():
        return text
    return "".join(TAB if char == "\t" else _caret(char) for char in text)


def _caret(char: str) -> str:
    code = ord(char)
    return f"^{chr(code ^ 0x40)}" if code < 0x20 or code == 0x7F else "�" if 0x80 <= code < 0xA0 else char


def width(text: str) -> int:
    """How many cells it takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(char: str) -> int:
    if unicodedata.category(char) in _INVISIBLE:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def wrap(text: str, cells: int) -> list[str]:
    """The text in lines of at most so many cells; at least one line."""
    return [piece for line in text.split("\n") for piece in _pieces(visible(line), cells)]


def _pieces(line: str, cells: int) -> Iterator[str]:
    if line.isascii():
        yield from (line[at : at + cells] for at in range(0, max(len(line), 1), cells))
        return
    piece, used = "", 0
    for char in line:
        if used + _cells(char) > cells:
            yield piece
            piece, used = "", 0
        piece += char
        used += _cells(char)
    yield piece


def pad(text: str, cells: int) -> str:
    """The text with blanks up to so many cells."""
    return text + " " * (cells - width(text))

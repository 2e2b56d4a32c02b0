"""Reads what tmux captured of a pane, with its escape sequences, into runs of text with a style."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from rich.ansi import AnsiDecoder
from rich.color import Color, ColorSystem, ColorType
from rich.style import Style
from rich.text import Text

from torch_tasks.model.drawn_screen import DrawnScreen, Run

_LINE_DRAWING = re.compile("\x0e([^\x0f]*)\x0f?")
_DRAWN = str.maketrans("`afgjklmnopqrstuvwxyz{|}~", "◆▒°±┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")
_UNDERLINE_COLOUR = re.compile("\x1b\\[5[89][\\d;:]*m")
_UNDERLINE_FORM = re.compile("\x1b\\[4:([0-5])m")
_ATTRIBUTES = ("bold", "dim", "italic", "underline", "strike")


def draw(lines: Iterable[str], columns: int, cursor: tuple[int, int] | None = None) -> DrawnScreen:
    """The captured lines as rows; a style goes on from one line to the next, as tmux writes it."""
    decoder = AnsiDecoder()
    rows = tuple(tuple(_runs(decoder.decode_line(_known(line)))) for line in lines)
    return DrawnScreen(columns=columns, rows=rows, cursor=cursor)


def _known(line: str) -> str:
    """The line in what the decoder knows: line drawing as characters, each sort of underline as one."""
    line = _LINE_DRAWING.sub(lambda found: found[1].translate(_DRAWN), line)
    line = _UNDERLINE_FORM.sub(lambda found: "\x1b[24m" if found[1] == "0" else "\x1b[4m", line)
    return _UNDERLINE_COLOUR.sub("", line)


def _runs(row: Text) -> Iterator[Run]:
    at = 0
    for start, end, style in row.spans:
        if start > at:
            yield Run(row.plain[at:start])
        if isinstance(style, Style):
            text = row.plain[start:end]
            yield Run(" " * len(text) if style.conceal else text, words_of(style))
        at = end
    if at < len(row.plain):
        yield Run(row.plain[at:])


@lru_cache(maxsize=4096)
def words_of(style: Style) -> str:
    """A style as words; inverse is the other colour in each place, where ``ft`` and ``bt`` are the defaults of each."""
    front, back = _number(style.color), _number(style.bgcolor)
    if style.reverse:
        front, back = "t" if back is None else back, "t" if front is None else front
    colours = [f"{where}{colour}" for where, colour in (("f", front), ("b", back)) if colour is not None]
    return " ".join([*colours, *(name for name in _ATTRIBUTES if getattr(style, name))])


def _number(colour: Color | None) -> str | None:
    """The colour's place among the 256; none for the default."""
    if colour is None or colour.type is ColorType.DEFAULT:
        return None
    near = colour.downgrade(ColorSystem.EIGHT_BIT) if colour.type is ColorType.TRUECOLOR else colour
    return None if near.number is None else str(near.number)

"""Rows of a terminal as HTML: texts are escaped, styles are classes, and each character keeps its column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from torch_tasks.model.drawn_screen import DrawnScreen, Row, Run, cells, text_of

THUMB_ROWS, THUMB_COLUMNS = 14, 90
_SIMPLE = re.compile("[ -~\u00a0-\u017f\u2010-\u2027\u2500-\u259f]*")
"""What every monospaced font has, one column wide; anything else gets a box of its width."""
_STEPS = (0, 95, 135, 175, 215, 255)
_FIRST = (
    "1d2126 e5534b 57ab5a c69026 539bf5 b083f0 39c5cf c5d1de 768390 ff938a 6bc46d daaa3f 6cb6ff dcbdfb 56d4dd ffffff"
)


def whole_screen(screen: DrawnScreen) -> list[str]:
    """Every row, with the cursor in its place."""
    column, line = screen.cursor or (0, -1)
    return [row_html(row, column if at == line else None) for at, row in enumerate(screen.rows)]


def thumb(screen: DrawnScreen) -> list[str]:
    """The last rows on which something stands, as far as a small picture shows them."""
    last = max((at for at, row in enumerate(screen.rows) if text_of(row).strip()), default=-1)
    rows = screen.rows[max(0, last + 1 - THUMB_ROWS) : last + 1]
    return [row_html(_cut(row, THUMB_COLUMNS)) for row in rows]


def row_html(row: Row, cursor: int | None = None) -> str:
    """One row; ``cursor`` is the column in which it stands."""
    return "".join(_pieces(row if cursor is None else _with_cursor(row, cursor)))


def colour_sheet() -> str:
    """The style sheet of the 256 colours: ``.f17`` for text, ``.b17`` for what is behind it."""
    colours = enumerate(_colours())
    return "".join(f".f{number}{{color:#{code}}}.b{number}{{background:#{code}}}\n" for number, code in colours)


def _colours() -> Iterator[str]:
    yield from _FIRST.split()
    yield from (f"{red:02x}{green:02x}{blue:02x}" for red in _STEPS for green in _STEPS for blue in _STEPS)
    yield from (f"{grey:02x}" * 3 for grey in range(8, 248, 10))


def _pieces(row: Iterable[Run]) -> Iterator[str]:
    for text, style in row:
        inner = escape(text) if _SIMPLE.fullmatch(text) else "".join(_boxed(text))
        yield f'<span class="{escape(style)}">{inner}</span>' if style else inner


def _boxed(text: str) -> Iterator[str]:
    for place, width in cells(text):
        shown = escape(place)
        yield shown if _SIMPLE.fullmatch(place) else f'<span class="w{min(max(width, 1), 2)}">{shown}</span>'


def _cut(row: Row, columns: int) -> Row:
    """The row as far as this column."""
    kept, at = [], 0
    for text, style in row:
        if at >= columns:
            break
        if _SIMPLE.fullmatch(text):
            kept.append(Run(text[: columns - at], style))
            at += len(text)
            continue
        places = [place for place, at in _columns(text, at) if at < columns]
        kept.append(Run("".join(places), style))
        at += sum(width for _, width in cells(text))
    return tuple(kept)


def _columns(text: str, at: int) -> Iterator[tuple[str, int]]:
    for place, width in cells(text):
        yield place, at
        at += width


def _with_cursor(row: Row, cursor: int) -> Row:
    """The row with a run of its own where the cursor stands, beyond its end, too."""
    found, at = list[Run](), 0
    for text, style in row:
        before, under, after = "", "", ""
        for place, width in cells(text):
            if at <= cursor < at + width:
                under = place
            elif under:
                after += place
            else:
                before += place
            at += width
        parts = ((before, style), (under, f"{style} cursor".strip()), (after, style))
        found += [Run(part, name) for part, name in parts if part]
    if at <= cursor:
        found += [Run(" " * (cursor - at)), Run(" ", "cursor")]
    return tuple(found)

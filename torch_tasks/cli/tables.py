"""How a table fits a terminal: ids and states stay whole, texts are cut or wrapped, what matters least is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

GAP = 2
STYLES = {
    "bold red": "failed dead error exited quarantined expired refused stopped unroutable lost",
    "yellow": "waiting parked limited login paused retiring starting restarting reserved spooled skipped drained aside "
    "compacting unknown",
    "cyan": "running working assigned staged due fired",
    "green": "succeeded ready active delivered acknowledged read sent",
    "dim": "pending offline gone cancelled ended retired",
}
"""How the words of states are shown; of several in one cell, the first of these styles counts."""


class Fit(Enum):
    """What becomes of a column that has too little room."""

    WHOLE = "whole"
    """It keeps the room it needs: ids, states, numbers."""
    CUT = "cut"
    """Its texts are cut at the end, with …."""
    WRAPPED = "wrapped"
    """Its texts go on in the next line."""


@dataclass(frozen=True)
class Column:
    """One column: what it is called, and how it gives way."""

    heading: str
    fit: Fit = Fit.WHOLE
    least: int = 12
    """The width that a text keeps in any case."""
    spare: int = 0
    """If not zero, it may be left out where there is too little room; the highest goes first."""
    usual: str = ""
    """If all its cells are this, a terminal does not show it."""
    is_state: bool = False
    """Whether its cells are states, which have their colours."""


def cut(heading: str, least: int = 12, spare: int = 0) -> Column:
    """A column of texts of which the beginning says enough."""
    return Column(heading, Fit.CUT, least, spare)


def wrapped(heading: str, least: int = 24, spare: int = 0) -> Column:
    """A column of texts that are to be read to their end."""
    return Column(heading, Fit.WRAPPED, least, spare)


def state(heading: str = "STATE") -> Column:
    """A column of states."""
    return Column(heading, is_state=True)


@dataclass(frozen=True)
class Layout:
    """The columns that are shown, by their numbers, and the width of each."""

    widths: dict[int, int]
    left_out: tuple[str, ...] = ()
    """The headings for which there was no room."""


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Layout | None:
    """The layout at this width; None if what must stay whole does not fit side by side."""
    natural = _natural(columns, rows)
    shown = [n for n, column in enumerate(columns) if not rows or any(row[n] != column.usual for row in rows)]
    least = {n: _least(columns[n], natural[n]) for n in shown}
    left_out = []
    while sum(least.values()) + GAP * (len(least) - 1) > width:
        spare = max(least, key=lambda n: columns[n].spare)
        if not columns[spare].spare:
            return None
        left_out.append(columns[spare].heading)
        del least[spare]
    return Layout(_widened(least, natural, width - GAP * (len(least) - 1)), tuple(left_out))


def _natural(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column would be with room enough."""
    return [
        max(map(cell_len, [column.heading, *(line for row in rows for line in row[number].split("\n"))]))
        for number, column in enumerate(columns)
    ]


def _least(column: Column, natural: int) -> int:
    return natural if column.fit is Fit.WHOLE else min(natural, max(column.least, len(column.heading)))


def _widened(least: dict[int, int], natural: Sequence[int], width: int) -> dict[int, int]:
    """Give the room that is left to the narrowest of the columns that want more, one cell at a time."""
    widths, room = dict(least), width - sum(least.values())
    while room > 0 and (wanting := [n for n in widths if widths[n] < natural[n]]):
        widths[min(wanting, key=lambda n: widths[n])] += 1
        room -= 1
    return widths


def as_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """The whole table as plain lines, for a pipe."""
    widths = _natural(columns, rows)
    return [line for row in [[column.heading for column in columns], *rows] for line in _lines_of(row, widths)]


def _lines_of(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """The lines of one row, of which a cell may have several."""
    for pieces in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
        padded = (set_cell_size(piece, width) for piece, width in zip(pieces, widths, strict=True))
        yield (" " * GAP).join(padded).rstrip()


def side_by_side(columns: Sequence[Column], rows: Sequence[Sequence[str]], layout: Layout) -> Table:
    """The table in this layout."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0), show_edge=False)
    for number, width in layout.widths.items():
        if columns[number].fit is Fit.WRAPPED:
            table.add_column(columns[number].heading, width=width, overflow="fold")
        else:
            table.add_column(columns[number].heading, width=width, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*(styled(columns[number], row[number]) for number in layout.widths))
    return table


def one_below_the_other(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[Text]:
    """The rows where they do not fit side by side: each as a block with one line for each value."""
    widest = max(len(column.heading) for column in columns) + GAP
    lines = []
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            if cell != column.usual:
                lines.append(Text.assemble((f"{column.heading:<{widest}}", "bold"), styled(column, cell)))
        lines.append(Text())
    return lines[:-1]


def styled(column: Column, cell: str) -> Text:
    """The cell as it is printed: a state in its colour, a text that may be cut as one line."""
    if column.is_state:
        return Text(cell, style=style_of(cell))
    return Text(" ".join(cell.split()) if column.fit is Fit.CUT else cell)


def style_of(state: str) -> str:
    """The style of a state, such as ``ready, paused by operator``; none for a word that is no state."""
    words = set(state.replace(",", " ").replace("(", " ").replace(")", " ").split())
    return next((style for style, known in STYLES.items() if words & set(known.split())), "")

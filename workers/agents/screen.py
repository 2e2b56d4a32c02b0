"""What a person would see in the pane, as text: with and without what is only a suggestion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from workers.tmux.pane import AgentPane

_SEQUENCE = re.compile(r"\x1b(?:\[([0-9;:]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Za-z0-9]|.)|[\x0e\x0f]")


@dataclass(frozen=True)
class Screen:
    """One moment of a pane."""

    lines: tuple[str, ...]
    """The rows from the top, blanks at their ends removed."""
    solid: tuple[str, ...]
    """The same with blanks in the place of dim text: a suggestion that nobody wrote."""
    cursor: tuple[int, int] = (0, 0)
    """Column and row."""
    title: str = ""
    width: int = 200
    height: int = 50

    @classmethod
    def of(cls, pane: AgentPane) -> Self | None:
        """The pane as it is now; None if it is gone."""
        look = pane.look()
        if look is None:
            return None
        cursor = (look.cursor_x, look.cursor_y)
        return cls._made(pane.drawn(), cursor, look.title, look.width, look.height)

    @classmethod
    def parse(cls, text: str, *, cursor: tuple[int, int] = (0, 0), title: str = "") -> Self:
        """A recorded screen, as ``tmux capture-pane -e`` writes it."""
        rows = text.split("\n")
        return cls._made(rows, cursor, title, 200, len(rows))

    @classmethod
    def _made(cls, rows: Iterable[str], cursor: tuple[int, int], title: str, width: int, height: int) -> Self:
        drawn = list(_drawn(rows))
        lines = tuple("".join(char for char, _, _ in row).rstrip() for row in drawn)
        solid = tuple(_solid(row) for row in drawn)
        return cls(lines, solid, cursor, title, width, height)

    @property
    def text(self) -> str:
        """All rows down to the last that is not blank."""
        return "\n".join(self.lines).rstrip("\n")

    def bottom(self, count: int) -> tuple[str, ...]:
        """The last so many rows above the blank end."""
        return tuple(self.text.split("\n")[-count:])


_Cell = tuple[str, bool, bool]
"""A character; whether it is dim; whether it is reversed, as a drawn cursor is."""


def _drawn(rows: Iterable[str]) -> Iterator[list[_Cell]]:
    dim = reverse = False  # tmux says only what changes, also from row to row
    for row in rows:
        cells: list[_Cell] = []
        place = 0
        for sequence in _SEQUENCE.finditer(row):
            cells += [(char, dim, reverse) for char in row[place : sequence.start()]]
            place = sequence.end()
            if sequence[2] == "m":
                dim, reverse = _attributes(sequence[1], dim, reverse)
        cells += [(char, dim, reverse) for char in row[place:]]
        yield cells


def _attributes(parameters: str, dim: bool, reverse: bool) -> tuple[bool, bool]:
    numbers = iter(parameters.split(";"))
    for number in numbers:
        match number:
            case "" | "0":
                dim = reverse = False
            case "2":
                dim = True
            case "22" | "1":
                dim = dim and number == "1"
            case "7":
                reverse = True
            case "27":
                reverse = False
            case "38" | "48" | "58":  # a colour: its numbers are no attributes
                for _ in range({"5": 1, "2": 3}.get(next(numbers, ""), 0)):
                    next(numbers, "")
    return dim, reverse


def _solid(row: list[_Cell]) -> str:
    ghost = [dim for _, dim, _ in row]
    for at, (_, _, reverse) in enumerate(row[:-1]):
        if reverse and ghost[at + 1] and row[at + 1][0] != " ":  # the cursor stands on the suggestion's first letter
            ghost[at] = True
    return "".join(" " if hidden else char for (char, _, _), hidden in zip(row, ghost, strict=True)).rstrip()

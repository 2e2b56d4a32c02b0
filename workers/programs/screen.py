"""What a person would see in the pane, as text: with and without what is only a suggestion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import NamedTuple, Self

from torch_tasks.workers.tmux.pane import AgentPane

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
    in_use: bool = False
    """Somebody is at the keys: what they pressed may not be drawn yet."""
    used_at: int = 0
    """When that was last, as tmux tells it."""

    @classmethod
    def of(cls, pane: AgentPane) -> Self | None:
        """The pane as it is now; None if it is gone."""
        look = pane.look()
        if look is None:
            return None
        cursor = (look.cursor_x, look.cursor_y)
        drawn = cls._made(pane.drawn(), cursor, look.title, look.width, look.height)
        return replace(drawn, in_use=look.in_use, used_at=look.used_at)

    @classmethod
    def parse(cls, text: str, *, cursor: tuple[int, int] = (0, 0), title: str = "") -> Self:
        """A recorded screen, as ``tmux capture-pane -e`` writes it."""
        rows = text.split("\n")
        return cls._made(rows, cursor, title, 200, len(rows))

    @classmethod
    def _made(cls, rows: Iterable[str], cursor: tuple[int, int], title: str, width: int, height: int) -> Self:
        drawn = list(_drawn(rows))
        lines = tuple("".join(run.text for run in row).rstrip() for row in drawn)
        solid = tuple(_solid(row) for row in drawn)
        return cls(lines, solid, cursor, title, width, height)

    @property
    def text(self) -> str:
        """All rows down to the last that is not blank."""
        return "\n".join(self.lines).rstrip("\n")

    def bottom(self, count: int) -> tuple[str, ...]:
        """The last so many rows above the blank end."""
        return tuple(self.text.split("\n")[-count:])


class _Run(NamedTuple):
    """Characters that look alike. A look at a screen is as cheap as there are few of them."""

    text: str
    dim: bool
    reverse: bool
    """As a drawn cursor is."""


def _drawn(rows: Iterable[str]) -> Iterator[list[_Run]]:
    dim = reverse = False  # tmux says only what changes, also from row to row
    for row in rows:
        runs: list[_Run] = []
        place = 0
        for sequence in _SEQUENCE.finditer(row) if "\x1b" in row or "\x0e" in row or "\x0f" in row else ():
            if sequence.start() > place:
                runs.append(_Run(row[place : sequence.start()], dim, reverse))
            place = sequence.end()
            if sequence[2] == "m":
                dim, reverse = _attributes(sequence[1], dim, reverse)
        if place < len(row):
            runs.append(_Run(row[place:], dim, reverse))
        yield runs


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


def _solid(row: Sequence[_Run]) -> str:
    shown = []
    for run, after in zip_longest(row, row[1:]):
        text = " " * len(run.text) if run.dim else run.text
        if run.reverse and after and after.dim and after.text[0] != " ":
            text = f"{text[:-1]} "  # the cursor stands on the suggestion's first letter
        shown.append(text)
    return "".join(shown).rstrip()

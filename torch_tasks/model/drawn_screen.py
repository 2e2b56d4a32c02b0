"""What an agent's terminal shows, as runs of text with a style: no escape sequence is left in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, NamedTuple

from pydantic import Field, StringConstraints, model_validator
from rich.cells import cell_len

from torch_tasks.model.fields import Model
from torch_tasks.redaction import secrets_in
from torch_tasks.visible_text import without_hidden

_JOINER = "\N{ZERO WIDTH JOINER}"
_COVER = "·"


class Run(NamedTuple):
    """Text of one style in a row."""

    text: str
    style: Annotated[str, StringConstraints(pattern=r"^[a-z0-9 ]*$", max_length=100)] = ""
    """Words, each a class in the console's style sheet: ``f1`` and ``b17`` for colours of the 256, ``bold``, …"""


Row = tuple[Run, ...]


class DrawnScreen(Model):
    """Rows of a terminal. Nothing in them hides or changes the order of reading, and secrets are covered."""

    columns: int = Field(ge=1, le=2000)
    rows: tuple[Row, ...] = ()
    cursor: tuple[int, int] | None = None
    """Its column and row; none if the program hides it, or the rows are from above the screen."""

    @model_validator(mode="after")
    def _cover_up(self) -> DrawnScreen:
        shown = tuple(tuple(Run(without_hidden(text), style) for text, style in row) for row in self.rows)
        object.__setattr__(self, "rows", _covered(shown, self.columns))
        return self

    @property
    def plain(self) -> DrawnScreen:
        """The same without styles."""
        return self.model_copy(update={"rows": tuple((Run(text_of(row)),) for row in self.rows)})


def text_of(row: Row) -> str:
    return "".join(run.text for run in row)


def cells(text: str) -> Iterator[tuple[str, int]]:
    """What stands in each place of a row, and how many columns it takes; marks go with the character before them."""
    place, width = "", 0
    for char in text:
        own = cell_len(char)
        if place and (own == 0 or place.endswith(_JOINER)):
            place += char
            continue
        if place:
            yield place, width
        place, width = char, own
    if place:
        yield place, width


def _covered(rows: tuple[Row, ...], columns: int) -> tuple[Row, ...]:
    """The rows with a note over each secret; it takes as many columns, so that nothing else moves.

    A row that is full goes on in the next one, as far as a secret may.
    """
    texts = [text_of(row) for row in rows]
    ends = ["" if cell_len(text) >= columns else "\n" for text in texts]
    whole = "".join(text + end for text, end in zip(texts, ends, strict=True))
    secrets = secrets_in(whole)
    if not secrets:
        return rows
    cover = list(whole)
    for start, end, what in secrets:
        note = f"[redacted: {what}]".ljust(end - start, _COVER)
        cover[start:end] = [old if old == "\n" else new for old, new in zip(whole[start:end], note, strict=False)]
    over = iter("".join(cover))
    covered: list[Row] = []
    for row, end_of_row in zip(rows, ends, strict=True):
        covered.append(tuple(Run("".join(islice(over, len(text))), style) for text, style in row))
        list(islice(over, len(end_of_row)))
    return tuple(covered)

"""Long lists in pages, each of which has an address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ListPage:
    """One page of a list. Pages are counted from 1."""

    items: Sequence[Any]
    number: int
    pages: int
    total: int


def page_of(items: Sequence[Any], asked: str | None, size: int) -> ListPage:
    """The page that is asked for, or the nearest that there is."""
    pages = max(1, -(-len(items) // size))
    number = int(asked) if asked and asked.isascii() and asked.isdecimal() and len(asked) < 7 else 1
    number = min(max(number, 1), pages)
    return ListPage(items[(number - 1) * size : number * size], number, pages, len(items))

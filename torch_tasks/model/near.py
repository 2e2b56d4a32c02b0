"""Names near to one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 3
_LEAST = 0.6


def near(name: str, names: Iterable[str], least: float = _LEAST) -> list[str]:
    """Of these names, up to three that are written like this one, the nearest first; in any case.

    ``least`` is how alike they must be, from 0 to 1.
    """
    from difflib import get_close_matches  # only a mistake costs its import

    by_case = {one.casefold(): one for one in names}
    return [by_case[one] for one in get_close_matches(name.casefold(), by_case, n=_MOST, cutoff=least)]


def did_you_mean(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """``did you mean qa-1 or qa-2?``, or the other hint if no name is near."""
    found = near(name, names)
    return f"did you mean {' or '.join(found)}?" if found else otherwise

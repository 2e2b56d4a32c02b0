"""Times and lengths of time, as people write and read them."""

from __future__ import annotations

import re
from datetime import datetime

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+")
_PIECE = re.compile(
    r"(?P<count>\d+\.?\d*|\.\d+|an?\b)\s*(?P<unit>s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|"
    r"w(?:eeks?)?)(?![a-z])(?:\s*(?:,|and\b)?\s*)"
)


def local_time(moment: datetime) -> str:
    """A moment for people, as this machine's clocks show it, with the name of their zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def parse_duration(text: str, *, bare: float | None = None) -> float | None:
    """Seconds, from ``30m``, ``2 hours``, ``1h30m``, ``an hour and 5 minutes``; None if it is something else.

    A number alone counts in units of ``bare`` seconds; without that it is something else.
    """
    text = text.strip().casefold()
    if bare is not None and _NUMBER.fullmatch(text):
        return bare * float(text)
    total, place = 0.0, 0
    while place < len(text):
        found = _PIECE.match(text, place)
        if not found:
            return None
        count = 1.0 if found["count"].startswith("a") else float(found["count"])
        total, place = total + count * _SECONDS[found["unit"][0]], found.end()
    return total if text and not re.search(r"(,|and)\s*$", text) else None


def describe_duration(seconds: float, *, units: int = 2) -> str:
    """For people, in the largest units, up to the first that is zero: ``2 h 5 min``; under a minute, ``1.5 s``."""
    if 0 < seconds < 59.5:
        return f"{seconds:.2g} s"
    left, parts = max(round(seconds), 0), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:units]) or "0 s"

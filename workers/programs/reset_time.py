"""When a usage limit ends, read from a program's message."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)?")
_SPAN = re.compile(
    r"(?:(?P<days>\d+)\s*d(?:ays?)?)?[\s,]*(?:(?P<hours>\d+)\s*h(?:(?:ou)?rs?)?)?[\s,]*"
    r"(?:(?P<minutes>\d+)\s*m(?:in(?:ute)?s?)?)?[\s,]*(?:(?P<seconds>\d+(?:\.\d+)?)\s*s(?:ec(?:ond)?s?)?)?\b",
    re.IGNORECASE,
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_CLOCK = re.compile(
    r"(?:(?P<month>"
    + "|".join(_MONTHS)
    + r")[a-z]*\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s*(?:\d{4},?\s*)?(?:at\s+)?)?"
    r"\b(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s*(?P<half>[ap]\.?m\.?)?(?:\s*\((?P<zone>[\w/+-]+)\)|\s*(?P<utc>UTC|GMT)\b)?",
    re.IGNORECASE,
)

#: A time of day that passed within this is not tomorrow's: programs round to minutes, and their clock may differ.
_JUST_NOW = timedelta(minutes=10)
_SOON = timedelta(minutes=1)


def reset_time(text: str, at: datetime) -> datetime | None:
    """The moment meant by ``3:45pm``, ``Nov 26, 3pm (Europe/Berlin)``, ``in 2h 10m`` or ``2026-11-24 15:00 UTC``.

    A time without a zone is local; one that passed more than minutes ago is tomorrow's. None if it cannot be read.
    """
    try:
        return _stamp(text) or _span(text, at) or _clock(text, at)
    except (ValueError, OverflowError):
        return None


def _stamp(text: str) -> datetime | None:
    found = _STAMP.search(text)
    if not found:
        return None
    zone = found[3]
    moment = datetime.fromisoformat(f"{found[1]}T{found[2]}")
    if zone in (None, "Z", "UTC", "GMT"):
        return moment.replace(tzinfo=UTC) if zone else moment.astimezone()
    return datetime.fromisoformat(f"{found[1]}T{found[2]}{zone[:3]}:{zone[-2:]}")


def _span(text: str, at: datetime) -> datetime | None:
    for found in _SPAN.finditer(text):
        parts = {name: float(number) for name, number in found.groupdict().items() if number}
        if parts:
            return at + timedelta(**parts)
    return None


def _clock(text: str, at: datetime) -> datetime | None:
    found = next((match for match in _CLOCK.finditer(text) if match["half"] or match["minute"]), None)
    if not found:
        return None
    hour, minute = int(found["hour"]), int(found["minute"] or 0)
    if half := found["half"]:
        hour = hour % 12 + (12 if half.lower().startswith("p") else 0)
    local = at.astimezone(_zone(found["zone"] or found["utc"]))
    moment = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if month := found["month"]:
        moment = moment.replace(month=_MONTHS.index(month.lower()[:3]) + 1, day=int(found["day"]))
        return moment if moment > local - timedelta(days=31) else moment.replace(year=moment.year + 1)
    if local - moment < _JUST_NOW:
        return max(moment, local + _SOON)
    return moment + timedelta(days=1)


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None

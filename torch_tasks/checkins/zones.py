"""Whose clock a time is meant by: the zone that somebody named, else that of their own machine."""

from __future__ import annotations

import difflib
import os
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import tzlocal

from torch_tasks.errors import InvalidCheckin


class Zone(NamedTuple):
    """A time zone, and who chose it."""

    name: str
    source: str

    @property
    def info(self) -> ZoneInfo:
        """The zone itself."""
        return ZoneInfo(self.name)

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"

    def instant(self, wall: datetime) -> datetime:
        """The moment at which this zone's clocks show this, or :class:`InvalidCheckin` if none or two do."""
        first, second = (wall.replace(tzinfo=self.info, fold=fold) for fold in (0, 1))
        if first.utcoffset() == second.utcoffset():
            return first
        moments = [moment.astimezone(UTC).astimezone(self.info) for moment in (first, second)]
        shown = f"{wall:%Y-%m-%d %H:%M}"
        if moments[0].replace(tzinfo=None, fold=0) == wall:
            both = " or ".join(f"'{moment.isoformat(sep=' ', timespec='minutes')}'" for moment in moments)
            raise InvalidCheckin(f"{shown} comes twice in {self.name}, for the clocks go back then; write {both}")
        raise InvalidCheckin(
            f"{shown} does not come in {self.name}, for the clocks go forward then; "
            f"write '{moments[0]:%Y-%m-%d %H:%M}' if that is meant"
        )


def zone_named(name: str) -> Zone:
    """The zone of this name, or :class:`InvalidCheckin` with those that look alike."""
    names = available_timezones()
    found = name if name in names else next((one for one in names if one.casefold() == name.casefold()), None)
    if found is None:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "use one such as 'Europe/Berlin' or 'UTC'"
        raise InvalidCheckin(f"{name!r} is no time zone that this machine knows; {hint}")
    return Zone(found, "as given")


def own_zone() -> Zone:
    """The zone of whoever calls: that of ``TZ``, else of this machine; :class:`InvalidCheckin` if nothing tells it."""
    told = os.environ.get("TZ", "")
    try:
        name = told.removeprefix(":") or tzlocal.get_localzone_name()
    except (ZoneInfoNotFoundError, ValueError, OSError):
        name = None
    if name not in available_timezones():
        whose = f"TZ={told} is" if told else "this machine's own time zone has"
        raise InvalidCheckin(
            f"{whose} no name that tells a time zone; write a zone behind the time, such as 'Europe/Berlin'"
        )
    return Zone(name, "from TZ" if told else "this machine's own")

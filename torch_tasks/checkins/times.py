"""Reads times and intervals as people write them, in the time zone that is named or this machine's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import tzlocal
from pydantic import ValidationError

from torch_tasks.errors import InvalidCheckin
from torch_tasks.model.checkin import At, Cron, Every
from torch_tasks.model.durations import parse_duration
from torch_tasks.model.fields import readable
from torch_tasks.model.near import did_you_mean


class Zone(NamedTuple):
    """A time zone, and where it comes from."""

    name: str
    source: str

    @property
    def info(self) -> ZoneInfo:
        return ZoneInfo(self.name)

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"

    def instant(self, wall: datetime) -> datetime:
        """The moment at which this zone's clocks show ``wall``; :class:`InvalidCheckin` if none or two do."""
        first, second = (wall.replace(tzinfo=self.info, fold=fold) for fold in (0, 1))
        if first.utcoffset() == second.utcoffset():
            return first
        moments = [moment.astimezone(UTC).astimezone(self.info) for moment in (first, second)]
        shown = f"{wall:%Y-%m-%d %H:%M}"
        if moments[0].replace(tzinfo=None, fold=0) == wall:
            both = " or ".join(f"'{moment.isoformat(sep=' ', timespec='minutes')}'" for moment in moments)
            raise InvalidCheckin(f"{shown} comes twice in {self.name}, where the clocks go back; write {both}")
        raise InvalidCheckin(
            f"{shown} does not exist in {self.name}, where the clocks go forward; "
            f"did you mean '{moments[0]:%Y-%m-%d %H:%M}'?"
        )


def zone_named(name: str) -> Zone:
    """The zone of this name; :class:`InvalidCheckin` suggests similar names."""
    names = available_timezones()
    found = name if name in names else next((one for one in names if one.casefold() == name.casefold()), None)
    if found is None:
        hint = did_you_mean(name, names, "use one such as 'Europe/Berlin' or 'UTC'")
        raise InvalidCheckin(f"{name!r} is no time zone known to this machine; {hint}")
    return Zone(found, "as given")


def own_zone() -> Zone:
    """The zone of ``TZ``, else of this machine; :class:`InvalidCheckin` if it has no name."""
    given = os.environ.get("TZ", "")
    try:
        name = given.removeprefix(":") or tzlocal.get_localzone_name()
    except (ZoneInfoNotFoundError, ValueError, OSError):
        name = None
    if name not in available_timezones():
        what = f"TZ={given} is no time zone" if given else "this machine's time zone has no name"
        raise InvalidCheckin(f"{what}; write a zone behind the time, such as 'Europe/Berlin'")
    return Zone(name, "from TZ" if given else "this machine's own")


ONCE = "'30' (minutes), 'in 2 hours', '14:30', 'tomorrow 9:00' or '2026-12-01 09:00 Europe/Berlin'"
AGAIN = "'every 30m', 'every 2 hours from 9:00', 'weekdays 9:00 Europe/Berlin', 'mondays 8:30' or '*/15 * * * *'"
LONGEST = timedelta(days=3660)
"""The latest time that is accepted: anything later is taken for a typing error."""
_CLOCK = r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s*(?P<half>am|pm)?"
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[t ](\d\d?:\d\d(?::\d\d(?:\.\d{1,6})?)?)\s*(z|[+-]\d\d:?\d\d)?", re.IGNORECASE)
_WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAYS = {"day": "*", "weekday": "1-5", "weekend": "6,0"}
for _number, _day in enumerate(_WEEK, 1):
    _DAYS |= {_day: str(_number % 7), _day[:3]: str(_number % 7)}
_OFTEN = {"daily": "*"} | {f"{day}s": number for day, number in _DAYS.items()}
_CRON_LINE = re.compile(r"(?:[\d*/,-]+ ){2,3}(?:[\dA-Z*/,#?-]+ ){2}[\dA-Z*/,#?-]+", re.IGNORECASE)


class Timed(NamedTuple):
    """A schedule, and the zone in which it was read; None if it is the same in every zone."""

    schedule: At | Every | Cron
    zone: Zone | None


class _Reader:
    """Reads one text in one time zone."""

    def __init__(self, text: str, now: datetime, zone: str | None, own: Zone | None) -> None:
        self._now = now.astimezone(UTC)  # in which hours are added as they pass
        self._given = zone_named(zone) if zone else None
        self._own = own
        self.used_zone: Zone | None = None
        self.words = self._without_zone(" ".join(text.split()))

    @property
    def zone(self) -> Zone:
        """The zone; reading this marks the schedule as dependent on it."""
        self.used_zone = self.used_zone or self._given or self._own or own_zone()
        return self.used_zone

    @property
    def wall(self) -> datetime:
        """What the zone's clocks show now."""
        return self._now.astimezone(self.zone.info).replace(tzinfo=None)

    def _without_zone(self, text: str) -> str:
        rest, _, last = text.rpartition(" ")
        if not rest or not _may_be_zone(last):
            return text
        named = zone_named(last)
        if self._given and self._given.name != named.name:
            raise InvalidCheckin(f"{text!r} names {named.name}, but the zone is {self._given.name}; name one of them")
        self._given = named
        return rest

    # ── once ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def once(self, text: str) -> datetime | None:
        """The future moment that this text names; None if it cannot be read."""
        ways = (self._minutes, self._in, self._date, self._next_clock, self._in_words)
        moment = next(filter(None, (way(text) for way in ways)), None)
        if moment is None:
            return None
        if moment <= self._now:
            shown = moment.isoformat(sep=" ", timespec="seconds")
            raise InvalidCheckin(f"{text!r} is in the past ({shown}); name a later time")
        return moment

    def _minutes(self, text: str) -> datetime | None:
        return self._after(60 * float(text)) if re.fullmatch(r"\d+\.?\d*|\.\d+", text) else None

    def _in(self, text: str) -> datetime | None:
        seconds = parse_duration(text.casefold().removeprefix("in ").removesuffix(" from now"))
        return None if seconds is None else self._after(seconds)

    def _after(self, seconds: float) -> datetime:
        if seconds > LONGEST.total_seconds():
            raise InvalidCheckin(f"that is more than {LONGEST.days // 366} years away; name an earlier time")
        return self._now + timedelta(seconds=seconds)

    def _date(self, text: str) -> datetime | None:
        found = _MOMENT.fullmatch(text)
        if not found:
            return None
        day, clock, offset = found.groups()
        try:
            wall = datetime.fromisoformat(f"{day} {clock.zfill(len(clock) + (clock[1] == ':'))}")
            moment = datetime.fromisoformat(f"{wall.isoformat()}{offset.upper()}") if offset else None
        except ValueError as error:
            raise InvalidCheckin(f"{text!r} is no time: {error}") from None
        if moment and self._given:
            raise InvalidCheckin(f"{text!r} has an offset as well as a time zone; name one of them")
        return moment or self.zone.instant(wall)

    def _next_clock(self, text: str) -> datetime | None:
        clock = _clock(text)
        if clock is None:
            return None
        today = self.wall.replace(hour=clock[0], minute=clock[1], second=0, microsecond=0)
        return self.zone.instant(today if today > self.wall else today + timedelta(days=1))

    def _in_words(self, text: str) -> datetime | None:
        """The moment, if parsedatetime reads the whole text as a day and a time of day."""
        text = re.sub(r"\bat (\d{1,2})$", r"\1:00", text.casefold())
        if re.search(r"\d[-/.]\d", text):  # 12/11 is one day in some countries and another in others
            return None
        if sum(word in _DAYS for word in re.findall("[a-z]+", text)) > 1:
            return None
        import parsedatetime  # slow to load, so only for times in words

        calendar = parsedatetime.Calendar(
            parsedatetime.Constants("en_US", usePyICU=False), version=parsedatetime.VERSION_CONTEXT_STYLE
        )
        found: Any = calendar.nlp(text, self.wall) or ()
        if len(found) != 1:
            return None
        wall, context, begin, end, _ = found[0]
        to_the_hour = context.accuracy & context.ACU_HOUR or re.search(r"\bnoon\b", text)
        if (begin, end) != (0, len(text)) or not (context.hasDate and to_the_hour) or not _says(wall, text):
            return None
        if wall.date() - self.wall.date() == timedelta(days=7) and text.split()[0] in _DAYS:
            today = f"{self.wall:%Y-%m-%d} {wall:%H:%M}"
            raise InvalidCheckin(f"{text!r} may be today or in a week; write '{today}' or '{wall:%Y-%m-%d %H:%M}'")
        return self.zone.instant(wall)

    # ── repeatedly ───────────────────────────────────────────────────────────────────────────────────────────────

    def again(self) -> At | Every | Cron | None:
        """The repeating schedule that this text names; None if it names none."""
        if _CRON_LINE.fullmatch(self.words):
            return _built(lambda: Cron(expression=self.words, timezone=self.zone.name))
        every, rest = re.fullmatch(r"(every )?(.*)", self.words.casefold(), re.DOTALL).groups()  # type: ignore[union-attr]
        return self._on_days(rest, {**_DAYS, **_OFTEN} if every else _OFTEN) or (self._every(rest) if every else None)

    def _on_days(self, text: str, names: dict[str, str]) -> Cron | None:
        found = re.fullmatch(r"([a-z ,]+?)(?: at)? (\d.*)", text)
        days = re.split(r",\s*|\s+and\s+", found[1]) if found else []
        at = _clock(found[2]) if found else None
        if at is None or not all(day in names for day in days):
            return None
        chosen = ",".join(dict.fromkeys(names[day] for day in days))
        chosen = "*" if "*" in chosen else chosen
        return _built(lambda: Cron(expression=f"{at[1]} {at[0]} * * {chosen}", timezone=self.zone.name))

    def _every(self, text: str) -> Every | None:
        length, _, start = text.partition(" from ")
        seconds = parse_duration(length if length[:1].isdecimal() or length[:1] == "." else f"a {length}")
        if not seconds:
            return None
        begins = self.once(start) if start else self._after(seconds)
        return None if begins is None else _built(lambda: Every(seconds=seconds, start=begins))


def schedule(text: str, now: datetime, zone: str | None = None, own: Zone | None = None) -> Timed:
    """The schedule that a text names, once or repeatedly; :class:`InvalidCheckin` if it is unclear.

    A time that names no zone is meant in the ``zone`` that was given, else in its caller's ``own``.
    """
    reader = _Reader(text, now, zone, own)
    found = reader.again()
    if found is None:
        found = _built(lambda: At(at=moment)) if (moment := reader.once(reader.words)) else None
    if found is None:
        raise InvalidCheckin(f"{text!r} is no clear time; write {ONCE}, or {AGAIN}")
    return Timed(found, reader.used_zone)


def moment(text: str, now: datetime, zone: str | None = None, own: Zone | None = None) -> tuple[datetime, Zone | None]:
    """The one future moment that a text names; :class:`InvalidCheckin` if it is unclear."""
    reader = _Reader(text, now, zone, own)
    found = reader.once(reader.words)
    if found is None:
        raise InvalidCheckin(f"{text!r} is no single moment; write {ONCE}")
    return found, reader.used_zone


def _clock(text: str) -> tuple[int, int] | None:
    """Hour and minute, from ``9:00``, ``at 14:30`` or ``9pm``; None if it is something else."""
    found = re.fullmatch(_CLOCK, text.casefold().removeprefix("at "))
    if not found or not (found["minute"] or found["half"]):
        return None
    hour, minute = int(found["hour"]), int(found["minute"] or 0)
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"] == "pm" else 0)
    return (hour, minute) if hour < 24 and minute < 60 else None


def _says(wall: datetime, text: str) -> bool:
    """Every number of the text is a part of this time."""
    parts = {wall.year, wall.day, wall.hour, wall.hour % 12 or 12, wall.minute, wall.second}
    return {int(number) for number in re.findall(r"\d+", text)} <= parts


def _may_be_zone(word: str) -> bool:
    return word.casefold() in ("utc", "gmt") or bool(re.fullmatch(r"[A-Za-z_]{2,}/[A-Za-z][A-Za-z0-9_+/-]+", word))


_Kind = TypeVar("_Kind", At, Every, Cron)


def _built(build: Callable[[], _Kind]) -> _Kind:
    try:
        return build()
    except ValidationError as error:
        raise InvalidCheckin(f"this schedule is not valid: {readable(error)}") from None

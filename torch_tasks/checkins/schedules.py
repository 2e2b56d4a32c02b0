"""When a check-in comes up: once, at intervals, or as cron says. Its times are called slots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from torch_tasks.fields import Seconds
from torch_tasks.models import Model


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(
            f"{name!r} is no time zone this machine knows; use one such as 'Europe/Berlin' or 'UTC'"
        ) from None
    return name


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


TimeZone = Annotated[str, AfterValidator(_time_zone)]
#: As exact as the broker counts.
Moment = Annotated[AwareDatetime, AfterValidator(_whole)]


class At(Model):
    """Once."""

    kind: Literal["at"] = "at"
    at: Moment

    def after(self, moment: datetime) -> datetime | None:
        """The first slot later than this moment."""
        return self.at if self.at > moment else None

    def __str__(self) -> str:
        return f"once, {self.at.isoformat(sep=' ', timespec='seconds')}"


class Every(Model):
    """At equal intervals from a start; the start is the first slot."""

    kind: Literal["every"] = "every"
    seconds: Annotated[Seconds, AfterValidator(lambda seconds: round(seconds, 3))] = Field(ge=1)
    start: Moment

    def after(self, moment: datetime) -> datetime | None:
        """The first slot later than this moment."""
        if moment < self.start:
            return self.start
        gone = int((moment - self.start) / timedelta(seconds=self.seconds))
        slot = self.start + timedelta(seconds=self.seconds) * gone
        while slot <= moment:  # what floats round away
            slot += timedelta(seconds=self.seconds)
        return slot

    def __str__(self) -> str:
        return f"every {timedelta(seconds=self.seconds)}"


class Cron(Model):
    """As a line of cron says, by the clock on the wall of a time zone.

    A time that the change to summer time leaves out comes right after the gap; one that happens twice comes once.
    """

    kind: Literal["cron"] = "cron"
    expression: str
    timezone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _comes_up(self) -> Cron:
        try:
            next(self._from(datetime.now(UTC)))
        except (CronSimError, StopIteration) as error:
            raise ValueError(
                f"{self.expression!r} is no cron line that ever comes up ({error}); "
                "write minute hour day month weekday, such as '0 9 * * 1-5'"
            ) from None
        return self

    def after(self, moment: datetime) -> datetime | None:
        """The first slot later than this moment, in UTC: the time on a wall is nothing to count with."""
        slot = next(self._from(moment), None)
        return slot.astimezone(UTC) if slot else None

    def _from(self, moment: datetime) -> CronSim:
        return CronSim(self.expression, moment.astimezone(ZoneInfo(self.timezone)))

    def __str__(self) -> str:
        return f"cron {self.expression} {self.timezone}"


Schedule = Annotated[At | Every | Cron, Field(discriminator="kind")]

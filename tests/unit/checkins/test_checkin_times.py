"""The times that people type: what each means, by whose clock, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from torch_tasks.checkins import times as zones
from torch_tasks.checkins.times import moment, own_zone, schedule, zone_named
from torch_tasks.errors import InvalidCheckin
from torch_tasks.model.checkin import At, Cron, Every

NOW = datetime(2026, 11, 28, 14, 0, 30, tzinfo=UTC)
"""A Saturday, 15:00:30 in Berlin."""
BERLIN = "Europe/Berlin"


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever types this sits in Berlin."""
    monkeypatch.setenv("TZ", BERLIN)


def berlin(*parts: int) -> datetime:
    """This moment by Berlin's clocks."""
    return datetime(*parts, tzinfo=zone_named(BERLIN).info)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("30", timedelta(minutes=30)),
        ("0.1", timedelta(seconds=6)),
        (".5", timedelta(seconds=30)),
        ("30.0", timedelta(minutes=30)),
        ("in 30m", timedelta(minutes=30)),
        ("in 2 hours", timedelta(hours=2)),
        ("  In  2   HOURS ", timedelta(hours=2)),
        ("an hour", timedelta(hours=1)),
        ("1h30m", timedelta(minutes=90)),
        ("in 1 hour and 30 minutes", timedelta(minutes=90)),
        ("30 minutes from now", timedelta(minutes=30)),
        ("45 sec", timedelta(seconds=45)),
        ("in 2 days", timedelta(days=2)),
        ("in a week", timedelta(weeks=1)),
        ("1.5 hours", timedelta(minutes=90)),
    ],
)
def test_a_length_of_time_counts_from_now_by_any_clock(text: str, after: timedelta) -> None:
    found = schedule(text, NOW)
    assert found.schedule == At(at=NOW + after)
    assert found.zone is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("15:30", berlin(2026, 11, 28, 15, 30)),
        ("15:00", berlin(2026, 11, 29, 15, 0)),
        ("at 9:00", berlin(2026, 11, 29, 9, 0)),
        ("9pm", berlin(2026, 11, 28, 21, 0)),
        ("12:05 am", berlin(2026, 11, 29, 0, 5)),
        ("12pm", berlin(2026, 11, 29, 12, 0)),
        ("tomorrow 9:00", berlin(2026, 11, 29, 9, 0)),
        ("Tomorrow at 9", berlin(2026, 11, 29, 9, 0)),
        ("tomorrow at noon", berlin(2026, 11, 29, 12, 0)),
        ("9:00 tomorrow", berlin(2026, 11, 29, 9, 0)),
        ("today 15:30", berlin(2026, 11, 28, 15, 30)),
        ("monday 9:00", berlin(2026, 11, 30, 9, 0)),
        ("next saturday 9:00", berlin(2026, 12, 5, 9, 0)),
        ("dec 1 2026 9:00", berlin(2026, 12, 1, 9, 0)),
        ("1 dec 9:00", berlin(2026, 12, 1, 9, 0)),
        ("2026-12-01 09:00", berlin(2026, 12, 1, 9, 0)),
        ("2026-12-01T9:00:30", berlin(2026, 12, 1, 9, 0, 30)),
    ],
)
def test_a_time_of_day_is_meant_by_the_clock_of_whoever_types_it(text: str, at: datetime) -> None:
    found = schedule(text, NOW)
    assert found.schedule == At(at=at)
    assert str(found.zone) == "Europe/Berlin (from TZ)"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-12-01 09:00 America/New_York", datetime(2026, 12, 1, 14, 0, tzinfo=UTC)),
        ("9:00 utc", datetime(2026, 11, 29, 9, 0, tzinfo=UTC)),
        ("tomorrow 9:00 asia/tokyo", datetime(2026, 11, 29, 0, 0, tzinfo=UTC)),  # tomorrow, as Berlin's day is Tokyo's
    ],
)
def test_a_zone_that_is_named_counts(text: str, at: datetime) -> None:
    found = schedule(text, NOW)
    assert isinstance(found.schedule, At)
    assert found.schedule.at == at
    assert found.zone
    assert found.zone.source == "as given"
    rest = text.rpartition(" ")[0]
    assert schedule(rest, NOW, zone=found.zone.name) == found


def test_an_offset_needs_no_zone_and_bears_none() -> None:
    for text in ("2026-12-01T09:00+01:00", "2026-12-01 08:00Z", "2026-12-01 09:00 +0100"):
        found = schedule(text, NOW)
        assert (found.schedule, found.zone) == (At(at=datetime(2026, 12, 1, 8, tzinfo=UTC)), None), text
    with pytest.raises(InvalidCheckin, match="an offset as well as a time zone; name one"):
        schedule("2026-12-01 08:00Z Europe/Berlin", NOW)
    with pytest.raises(InvalidCheckin, match="name one of them"):
        schedule("9:00 Europe/Paris", NOW, zone=BERLIN)


@pytest.mark.parametrize(
    ("text", "seconds", "start"),
    [
        ("every 30m", 1800, NOW + timedelta(minutes=30)),
        ("every hour", 3600, NOW + timedelta(hours=1)),
        ("every 90 seconds", 90, NOW + timedelta(seconds=90)),
        ("every 2 hours from 9:00", 7200, berlin(2026, 11, 29, 9, 0)),
        ("every 2 hours from 16:00", 7200, berlin(2026, 11, 28, 16, 0)),
        ("every 2h from monday 9:00 Europe/Berlin", 7200, berlin(2026, 11, 30, 9, 0)),
    ],
)
def test_an_interval_begins_one_interval_from_now_or_when_it_is_told(
    text: str, seconds: float, start: datetime
) -> None:
    assert schedule(text, NOW).schedule == Every(seconds=seconds, start=start)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("weekdays 9:00", "0 9 * * 1-5"),
        ("every weekday at 9am", "0 9 * * 1-5"),
        ("weekends 10:00", "0 10 * * 6,0"),
        ("daily 18:00", "0 18 * * *"),
        ("every day 18:00", "0 18 * * *"),
        ("mondays 8:30", "30 8 * * 1"),
        ("Mondays and Thursdays at 8:30", "30 8 * * 1,4"),
        ("every mon, wed, fri 9pm", "0 21 * * 1,3,5"),
        ("sundays 0:05", "5 0 * * 0"),
        ("*/15 * * * *", "*/15 * * * *"),
        ("0 9 * * MON-FRI", "0 9 * * MON-FRI"),
    ],
)
def test_days_and_lines_of_cron_go_by_the_clock_on_the_wall(text: str, expression: str) -> None:
    assert schedule(text, NOW).schedule == Cron(expression=expression, timezone=BERLIN)
    assert schedule(f"{text} America/New_York", NOW).schedule == Cron(
        expression=expression, timezone="America/New_York"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "soon",
        "in 30",
        "in 30 parsecs",
        "tomorrow",
        "tomorrow morning",
        "monday",
        "next week",
        "tonight",
        "eod",
        "now",
        "tomorrow 9:00 please",
        "call mum tomorrow 9:00",
        "day after tomorrow 9:00",
        "friday the 13th 9:00",
        "10 9:00",
        "monday tuesday 9:00",
        "feb 31 9:00",
        "may 40 9:00",
        "tomorrow 25:00",
        "9:75",
        "25:00",
        "13am",
        "12/11 9:00",
        "1.12. 9:00",
        "2026-12-01",
        "2026-13-01 09:00",
        "2026-02-30 09:00",
        "-5",
        "1e5",
        "nan",
        "inf",
        "30 minutes ago",
        "5 minutes ago",
        "tomorrow 9:00 tomorrow 10:00",
        "every",
        "every monday",
        "every 0m",
        "every -5m",
        "every 2 hours please",
        "every 30m tomorrow",
        "every other day 9:00",
        "mondays",
        "weekday 9:00",
        "hourly",
        "61 * * * *",
        "0 0 30 2 *",
        "* * * *",
        "9:00 CEST",
        "an",
        "every 30m from soon",
    ],
)
def test_what_is_not_clear_to_the_last_word_is_refused(text: str) -> None:
    with pytest.raises(InvalidCheckin):
        schedule(text, NOW)


def test_a_refusal_shows_what_can_be_said() -> None:
    forms = r"'soon' is no clear time.* '30' \(minutes\).* 'weekdays 9:00 Europe/Berlin'"
    with pytest.raises(InvalidCheckin, match=forms):
        schedule("soon", NOW)
    with pytest.raises(InvalidCheckin, match="did you mean Europe/Berlin"):
        schedule("9:00 Europe/Berln", NOW)
    with pytest.raises(InvalidCheckin, match="today or in a week; write '2026-11-28 16:00' or '2026-12-05 16:00'"):
        schedule("saturday 16:00", NOW)


@pytest.mark.parametrize("text", ["2026-11-28 14:59", "today 15:00", "yesterday 9:00", "last monday 9:00", "0"])
def test_what_is_past_is_refused(text: str) -> None:
    with pytest.raises(InvalidCheckin, match="is in the past"):
        schedule(text, NOW)


def test_what_is_too_far_away_is_refused() -> None:
    for text in ("99999999999", "every 999999 days", "in 12 years", "in 600 weeks"):
        with pytest.raises(InvalidCheckin):
            schedule(text, NOW)


def test_hours_pass_as_they_pass_whatever_the_clocks_do() -> None:
    night = berlin(2027, 3, 28, 1, 30)
    assert schedule("in 2 hours", night).schedule == At(at=berlin(2027, 3, 28, 4, 30))
    assert schedule("tomorrow 9:00", berlin(2027, 3, 27, 12)).schedule == At(at=datetime(2027, 3, 28, 7, tzinfo=UTC))
    assert schedule("tomorrow 9:00", berlin(2027, 10, 30, 12)).schedule == At(at=datetime(2027, 10, 31, 8, tzinfo=UTC))


def test_a_time_that_the_clocks_leave_out_or_show_twice_is_refused_with_what_to_write() -> None:
    with pytest.raises(InvalidCheckin, match=r"does not exist in Europe/Berlin.* did you mean '2027-03-28 03:30'"):
        schedule("2027-03-28 02:30", NOW)
    with pytest.raises(InvalidCheckin, match=r"comes twice.* write '2027-10-31 02:30\+02:00' or '.*02:30\+01:00'"):
        schedule("2:30", berlin(2027, 10, 30, 12))
    assert schedule("2027-10-31 02:30+01:00", NOW).schedule == At(at=datetime(2027, 10, 31, 1, 30, tzinfo=UTC))


def test_a_moment_is_one_moment() -> None:
    assert moment("tomorrow 9:00", NOW) == (berlin(2026, 11, 29, 9, 0), own_zone())
    assert moment("30", NOW) == (NOW + timedelta(minutes=30), None)
    for text in ("every 30m", "weekdays 9:00", "*/15 * * * *"):
        with pytest.raises(InvalidCheckin, match="no single moment"):
            moment(text, NOW)


def test_a_zone_that_nothing_tells_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST")
    with pytest.raises(InvalidCheckin, match="TZ=CET-1CEST"):
        schedule("9:00", NOW)
    assert schedule("in 30m", NOW).zone is None
    assert schedule("9:00 UTC", NOW).zone == zones.Zone("UTC", "as given")
    monkeypatch.delenv("TZ")
    assert own_zone().source == "this machine's own"

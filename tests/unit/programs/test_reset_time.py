"""When a usage limit ends, in the words of the programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from torch_tasks.workers.programs.reset_time import reset_time

AT = datetime(2026, 11, 24, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resets 3:45pm (UTC)", datetime(2026, 11, 24, 15, 45, tzinfo=UTC)),
        ("resets 3pm (UTC)", datetime(2026, 11, 25, 15, tzinfo=UTC)),
        ("resets 12am (Europe/Berlin)", datetime(2026, 11, 24, 23, tzinfo=UTC)),
        ("try again at 16:05 UTC", datetime(2026, 11, 24, 16, 5, tzinfo=UTC)),
        ("Your limit will reset at Nov 26, 9am (UTC).", datetime(2026, 11, 26, 9, tzinfo=UTC)),
        ("resets Jan 2 at 9:15 AM (UTC)", datetime(2027, 1, 2, 9, 15, tzinfo=UTC)),
        ("try again in 2h 10m", AT + timedelta(hours=2, minutes=10)),
        ("Try again in 3 days 4 hours 5 minutes.", AT + timedelta(days=3, hours=4, minutes=5)),
        ("retry in 41.5s", AT + timedelta(seconds=41.5)),
        ("available in 45 minutes", AT + timedelta(minutes=45)),
        ("at 2026-11-24 18:00 UTC", datetime(2026, 11, 24, 18, tzinfo=UTC)),
        ("2026-11-24T18:00:05+02:00", datetime(2026, 11, 24, 16, 0, 5, tzinfo=UTC)),
        ("usage limit advance_to", None),
        ("429 Too Many Requests, attempt 4/10", None),
        ("resets 99:99pm", None),
    ],
)
def test_the_moment_that_is_meant(text: str, expected: datetime | None) -> None:
    assert reset_time(text, AT) == expected


def test_a_time_without_a_zone_is_this_machines() -> None:
    local = AT.astimezone()
    found = reset_time(f"resets {(local + timedelta(hours=1)):%H:%M}", AT)
    assert found == AT + timedelta(hours=1)

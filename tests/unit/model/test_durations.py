"""Lengths of time are read and described in one way."""

from __future__ import annotations

import click
import pytest

from torch_tasks.cli.options import Duration
from torch_tasks.model.durations import describe_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1.5h", 5400),
        (".5 h", 1800),
        ("1d", 86400),
        ("2 weeks", 1209600),
        ("1h30m", 5400),
        ("2h5m", 7500),
        ("1 H 30 Min", 5400),
        ("an hour and 5 minutes", 3900),
        ("a day, 2 hrs", 93600),
        ("0s", 0),
        *((text, None) for text in ("", " ", "5", "m", "5m and", "5 mo", "5m x", "-5m", "1:30", "inf")),
    ],
)
def test_a_duration_is_read(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds
    assert seconds is None or parse_duration(text, bare=60) == seconds


@pytest.mark.parametrize(("text", "seconds"), [("5", 300), (" .5 ", 30), ("0", 0), ("5 mo", None), ("", None)])
def test_a_number_alone_counts_in_the_unit_that_is_named(text: str, seconds: float | None) -> None:
    assert parse_duration(text, bare=60) == seconds


@pytest.mark.parametrize(
    ("seconds", "two", "one"),
    [
        (-3, "0 s", "0 s"),
        (0.4, "0.4 s", "0.4 s"),
        (1.5, "1.5 s", "1.5 s"),
        (59.7, "1 min", "1 min"),
        (59, "59 s", "59 s"),
        (60, "1 min", "1 min"),
        (3661, "1 h 1 min", "1 h"),
        (7505, "2 h 5 min", "2 h"),
        (3605, "1 h", "1 h"),
        (90000, "1 d 1 h", "1 d"),
        (86700, "1 d", "1 d"),
    ],
)
def test_a_duration_is_described_in_its_largest_units(seconds: float, two: str, one: str) -> None:
    assert describe_duration(seconds) == two
    assert describe_duration(seconds, units=1) == one


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("2h", 7200), ("1h30m", 5400), ("0.5", 0.5), ("1e3", 1000), ("inf", float("inf"))],
)
def test_an_option_takes_a_duration_or_a_number_of_seconds(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", ""])
def test_an_option_refuses_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)
    if text != "0":
        with pytest.raises(click.BadParameter):
            Duration(or_zero=True).convert(text, None, None)
    else:
        assert Duration(or_zero=True).convert(text, None, None) == 0

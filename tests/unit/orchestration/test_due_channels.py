"""By which channels a person is told, and when by the next one; which declarations of channels are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from torch_tasks.model.notify_channel import NotifyChannel, each_name_once
from torch_tasks.orchestration.notifying import Mark, due

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LADDER = (
    NotifyChannel(push=True, patience_seconds=60),
    NotifyChannel(command="true", patience_seconds=300),
    NotifyChannel(target="ntfys://ntfy.example/fleet"),
)


def told(ago: float) -> Mark:
    return Mark(NOW - timedelta(seconds=ago))


def failed(ago: float) -> Mark:
    return Mark(NOW - timedelta(seconds=ago), has_failed=True)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({}, ["push"]),
        ({"push": told(59)}, []),
        ({"push": told(60)}, ["command"]),
        ({"push": told(400), "command": told(299)}, []),
        ({"push": told(400), "command": told(301)}, ["target"]),
        ({"push": told(9000), "command": told(8000), "target": told(7000)}, []),
        ({"push": failed(1)}, ["push", "command"]),
        ({"push": failed(1), "command": told(10)}, ["push"]),
        ({"push": failed(1), "command": failed(1)}, ["push", "command", "target"]),
        ({"push": told(60), "seen": told(1)}, []),
        ({"seen": told(1)}, []),
        ({"a channel that is no more": told(1)}, ["push"]),
    ],
    ids=str,
)
def test_who_comes_next(marks: dict[str, Mark], expected: list[str]) -> None:
    assert due(LADDER, marks, NOW) == expected


@pytest.mark.parametrize(
    ("marks", "at_a", "elsewhere"),
    [
        ({}, ["push"], ["push"]),
        ({"push@b": told(10)}, ["push"], []),
        ({"push@a": told(10), "push@b": told(10)}, [], []),
        ({"push@a": told(10), "push@b": told(70)}, ["command"], ["command"]),
        ({"push@a": failed(10), "push@b": told(10)}, ["push"], []),
    ],
    ids=str,
)
def test_each_server_tells_its_own_browsers(marks: dict[str, Mark], at_a: list[str], elsewhere: list[str]) -> None:
    assert due(LADDER, marks, NOW, {"push": "push@a"}) == at_a
    assert due(LADDER, marks, NOW) == elsewhere


def test_a_mark_is_read_as_it_was_written() -> None:
    assert Mark.read(str(told(5))) == told(5)
    assert Mark.read(str(failed(5))) == failed(5)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"push": True, "command": "true"},
        {"push": False},
        {"command": "true", "name": "push"},
        {"push": True, "name": "phone"},
        {"command": "true", "patience_seconds": -1},
        {"command": "true", "name": "a\nb"},
        {"tel": "112"},
    ],
    ids=str,
)
def test_a_channel_is_one_way_with_a_name(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NotifyChannel.model_validate(given)


def test_two_channels_have_two_names() -> None:
    with pytest.raises(ValueError, match="two channels are called command"):
        each_name_once((NotifyChannel(command="a"), NotifyChannel(command="b")))


def test_a_targets_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(NotifyChannel(target="mailto://me:s3cret@example.com"))

"""What says that a write is known beyond the one server: all of its replicas, or else most of the Sentinels."""

from __future__ import annotations

import pytest

from torch_tasks.broker.fence import have_all
from torch_tasks.broker.sentinels import Replicas, View, have_majority

HERE, THERE = ("a", 6379), ("b", 6379)
DOORS = {"s1": ("a", 26379), "s2": ("b", 26379), "s3": ("c", 26379)}
WELL = frozenset({"master"})


@pytest.mark.parametrize(
    ("acknowledged", "replicas", "counts"),
    [
        (1, Replicas(known=1, reached=1), True),
        (2, Replicas(known=2, reached=2), True),
        (0, Replicas(known=1, reached=1), False),
        (1, Replicas(known=2, reached=2), False),  # the one that has it may be cut off together with the primary
        (1, Replicas(known=2, reached=1), False),  # the one that is down may come back on the other side of a cut
        (0, Replicas(known=0, reached=0), False),  # Sentinel may not have heard of its replicas yet
    ],
)
def test_a_write_is_safe_where_each_server_has_it_that_may_be_promoted(
    acknowledged: int, replicas: Replicas, counts: bool
) -> None:
    assert have_all(acknowledged, replicas) is counts


def seen(by: str, primary: tuple[str, int] = HERE, flags: frozenset[str] = WELL, of: tuple[str, ...] = ()) -> View:
    """What a Sentinel says that knows the others ``of`` the three, or all."""
    others = {name: door for name, door in DOORS.items() if name != by and name in (of or DOORS)}
    return View(by, others, primary, flags)


@pytest.mark.parametrize("flag", ["s_down", "o_down", "disconnected", "failover_in_progress"])
def test_a_sentinel_that_gives_the_primary_up_is_not_for_it(flag: str) -> None:
    assert not seen("s1", flags=WELL | {flag}).sees_well(HERE)
    assert seen("s1").sees_well(HERE)


@pytest.mark.parametrize(
    ("views", "counts"),
    [
        ([], False),
        ([seen("s1")], False),  # cut off together with the primary
        ([seen("s1"), seen("s1")], False),  # one Sentinel under two names
        ([seen("s1"), seen("s2")], True),
        ([seen("s1"), seen("s2", THERE)], False),
        ([seen("s1"), seen("s2", THERE), seen("s3")], True),
        ([seen("s1"), seen("s2", flags=WELL | {"s_down"})], False),
        ([seen("s1", of=("s1",))], True),  # there is but one
        ([seen("s1", of=("s1", "s2"))], False),
        ([seen("s1", of=("s1",)), seen("s2")], True),
        ([seen("s1", of=("s1",)), seen("s2", THERE)], False),  # what one does not know, another one does
    ],
)
def test_most_of_all_sentinels_that_any_of_them_knows_must_see_it_well(views: list[View], counts: bool) -> None:
    assert have_majority(views, HERE) is counts

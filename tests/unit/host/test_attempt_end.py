"""What ends an attempt at a task: which reason counts first, and whether the attempt is still the agent's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import now
from torch_tasks.model.task import Failure, FailureKind, TaskSpec
from torch_tasks.store.task_outcomes import Ownership
from torch_tasks.workers.host.attempt_end import (
    ENDS,
    AttemptEnd,
    AttemptFacts,
    StandstillDetector,
    TimeLimit,
    is_decided,
    is_lost,
    what_ends,
)

ALONE: dict[AttemptEnd, dict[str, bool]] = {
    AttemptEnd.HALTED: {"is_halted": True},
    AttemptEnd.HANDED_OVER: {"is_handed_over": True},
    AttemptEnd.ENDED: {"has_ended": True},
    AttemptEnd.DIED: {"is_alive": False},
    AttemptEnd.LOST: {"is_lost": True},
    AttemptEnd.LEAVING: {"is_leaving": True},
    AttemptEnd.CANCELLED: {"is_cancelled": True},
    AttemptEnd.TIME_IS_OVER: {"time_is_over": True},
    AttemptEnd.STANDS_STILL: {"stands_still": True},
}


def test_the_agent_works_on_while_nothing_is_the_matter() -> None:
    assert what_ends(AttemptFacts()) is None


def test_every_end_is_decided_in_the_order_of_its_declaration() -> None:
    assert list(ENDS) == list(AttemptEnd) == list(ALONE)


@pytest.mark.parametrize("end", AttemptEnd)
def test_each_reason_alone_ends_the_attempt(end: AttemptEnd) -> None:
    assert what_ends(AttemptFacts(**ALONE[end])) is end


@pytest.mark.parametrize("first", AttemptEnd)
@pytest.mark.parametrize("second", AttemptEnd)
def test_of_two_reasons_the_earlier_counts(first: AttemptEnd, second: AttemptEnd) -> None:
    order = list(AttemptEnd)
    expected = min(first, second, key=order.index)
    if {first, second} == {AttemptEnd.HALTED, AttemptEnd.ENDED}:
        expected = AttemptEnd.ENDED  # what the program ended by itself is not given back
    assert what_ends(AttemptFacts(**ALONE[first], **(ALONE[second] if second is not first else {}))) is expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        # A former worker made the program let go, and died before it gave the task back.
        (AttemptFacts(was_halted=True, has_ended=True), AttemptEnd.HALTED),
        (AttemptFacts(was_halted=True, is_alive=False), AttemptEnd.HALTED),
        # The agent's own command to hand the task over may come to its end first.
        (AttemptFacts(is_handed_over=True, is_returning=True), None),
        (AttemptFacts(is_handed_over=True, is_returning=True, is_cancelled=True), AttemptEnd.CANCELLED),
        (AttemptFacts(is_handed_over=True, is_returning=True, has_ended=True), AttemptEnd.HANDED_OVER),
    ],
)
def test_halts_and_handovers(facts: AttemptFacts, expected: AttemptEnd | None) -> None:
    assert what_ends(facts) is expected


def info(incarnation: int = 3) -> AgentInfo:
    fields: dict[str, Any] = {
        "agent_id": "dev-1",
        "role": "dev",
        "skills": (),
        "kind": "shell",
        "node": "n-1",
        "host": "h",
        "pid": 1,
        "incarnation": incarnation,
        "workdir": "/",
        "tmux_socket": "/t",
        "started_at": now(),
    }
    return AgentInfo(**fields)


KEPT = {"agent": "dev-1", "node": "n-1", "revision": "7"}


@pytest.mark.parametrize(
    ("kept", "ownership", "expected"),
    [
        (None, None, True),  # the agent has let go of it already
        (KEPT, None, False),  # the broker is away
        (KEPT, Ownership(7, ("dev-1", "n-1", 3), False), False),
        (KEPT, Ownership(9, ("dev-1", "n-1", 2), False), False),  # this agent's, under an earlier worker
        (KEPT, Ownership(9, ("dev-1", "n-1", 4), False), True),  # under a later one
        (KEPT, Ownership(9, ("dev-1", "n-2", 3), False), True),
        (KEPT, Ownership(9, ("dev-2", "n-1", 3), False), True),
        (KEPT, Ownership(9, None, False), True),  # ended, or waits for another agent
        (KEPT, Ownership(5, None, False), False),  # the broker came back with older data
        (KEPT, Ownership(0, None, False), False),  # or with none
    ],
)
def test_whether_an_attempt_is_lost(kept: dict[str, str] | None, ownership: Ownership | None, expected: bool) -> None:
    assert is_lost(kept, ownership, info()) is expected


@pytest.mark.parametrize(
    ("failure", "check", "expected"),
    [
        (None, None, True),
        (FailureKind.EXIT_CODE, None, True),
        (None, "make test", False),
        (FailureKind.EXIT_CODE, "make test", False),
        (FailureKind.AGENT_FAILED, "make test", True),
        (FailureKind.INDETERMINATE, "make test", True),
    ],
)
def test_whether_the_programs_ending_decides_or_the_check(
    failure: FailureKind | None, check: str | None, expected: bool
) -> None:
    assert is_decided(failure and Failure(kind=failure, message="failed"), check) is expected


BEGUN = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("timeout", "deadline", "seconds", "kind"),
    [
        (60, None, 60, FailureKind.TIMEOUT),
        (None, 30, 30, FailureKind.DEADLINE),
        (60, 30, 30, FailureKind.DEADLINE),
        (20, 30, 20, FailureKind.TIMEOUT),
    ],
)
def test_the_earlier_of_timeout_and_deadline_counts(
    timeout: float | None, deadline: float | None, seconds: float, kind: FailureKind
) -> None:
    ends = BEGUN + timedelta(seconds=deadline) if deadline else None
    limit = TimeLimit.of(TaskSpec(prompt="work", timeout=timeout, deadline=ends), BEGUN)
    assert (limit.at, limit.kind) == (BEGUN + timedelta(seconds=seconds), kind)
    assert limit.left == 0, "the clock of the task runs from its beginning"


def test_a_task_without_limits_has_time() -> None:
    assert TimeLimit.of(TaskSpec(prompt="work"), BEGUN).left > 10**6


@pytest.mark.parametrize(
    ("screens", "expected"),
    [
        (["reads a.py"] * 3, False),
        (["reads a.py"] * 4, True),
        (["reads a.py", "reads a.py", "reads b.py", "reads b.py", "reads b.py"], False),
        # output that repeats itself brings lines, and none that is new
        (["reads a.py\nrests", "reads a.py\nreads a.py\nrests", "rests", "reads a.py"], False),
        (["reads a.py\nrests", "reads a.py\nreads a.py\nrests", "reads a.py\nrests", "rests\nreads a.py"], True),
        # what only counts brings nothing new
        (["reads 1 of 9", "reads 2 of 9", "reads 3 of 9", "reads 4 of 9"], True),
        (["reads\n12 tokens", "reads\n13 tokens in", "reads\nesc to interrupt", "reads"], True),
        # an agent that waits for an answer stands still for a reason
        (["reads a.py", "reads a.py", None, "reads a.py", "reads a.py"], False),
    ],
)
def test_an_agent_that_shows_nothing_new_stands_still(screens: list[str | None], expected: bool) -> None:
    detector = StandstillDetector(seconds=60)
    assert [detector.stands_still(screen) for screen in screens][-1] is expected


def test_where_no_standstill_is_looked_for_no_look_is_due() -> None:
    assert not StandstillDetector(seconds=0).is_due

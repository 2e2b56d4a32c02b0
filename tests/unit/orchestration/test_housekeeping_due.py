"""Which chores of the housekeeping are done now."""

from __future__ import annotations

import pytest

from torch_tasks.communication.policy import Policy
from torch_tasks.orchestration import attention, followups
from torch_tasks.orchestration.housekeeping import Chore, chores, due

ALWAYS, RARELY = Chore("always", print), Chore("rarely", print, 30.0)


@pytest.mark.parametrize(
    ("begun", "expected"),
    [
        ({}, ["always", "rarely"]),
        ({"always": 999.9, "rarely": 999.9}, ["always"]),
        ({"always": 999.9, "rarely": 970.1}, ["always"]),
        ({"always": 999.9, "rarely": 970.0}, ["always", "rarely"]),
        ({"always": 1000.0, "rarely": 1000.0}, ["always"]),
        ({"always": 2000.0, "rarely": 2000.0}, ["always", "rarely"]),
        ({"another": 999.9}, ["always", "rarely"]),
    ],
)
def test_a_chore_is_due_when_its_pause_is_over(begun: dict[str, float], expected: list[str]) -> None:
    assert [chore.name for chore in due([ALWAYS, RARELY], begun, 1000.0)] == expected


def test_without_a_policy_that_can_be_read_what_it_asks_for_is_left_out() -> None:
    names = [chore.name for chore in chores(Policy())]
    assert [chore.name for chore in chores(None)] == names[:-2]
    assert names[-2:] == ["follow-ups", "escalation"]


@pytest.mark.parametrize(
    ("rules", "followup", "escalation"),
    [
        (Policy(), 30.0, 30.0),
        (Policy(followup_minutes=(0.5, 9), blocked_minutes=1), 7.5, 15.0),
        (Policy(followup_minutes=(), blocked_minutes=0), 15.0, 0.0),
        (Policy(enabled=False), 15.0, 30.0),
    ],
)
def test_the_shorter_the_intervals_of_the_policy_the_oftener_it_is_looked(
    rules: Policy, followup: float, escalation: float
) -> None:
    assert followups.pause_between_looks(rules) == followup
    assert attention.pause_between_looks(rules) == escalation

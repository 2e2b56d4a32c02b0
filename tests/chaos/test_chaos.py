"""Storms with fixed seeds: whatever dies, nothing accepted is lost and nothing is done twice.

``make chaos SECONDS=300`` runs a longer one, with a seed of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.client import Order
from chaos.faults import plan
from chaos.fleet import Fleet
from chaos.storm import Outcome, storm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MIXED_SECONDS = 60.0
BROKER_SECONDS = 10.0
BROKER_TASKS = 40


def show(outcome: Outcome, capsys: pytest.CaptureFixture[str], title: str) -> None:
    """Print the table, also of a test that passes, and fail with everything that is known."""
    with capsys.disabled():
        print(f"\n{title}\n{outcome.table}")
    assert outcome.verdict.good, f"{outcome.verdict}\n{outcome.report}"


@pytest.mark.parametrize("seed", [7])
def test_nothing_is_lost_or_doubled_whatever_dies(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    with Fleet() as fleet:
        outcome = storm(fleet, plan(seed, MIXED_SECONDS), Order(200, MIXED_SECONDS, seed, fleet.agents))
        outcome.verdict.orphans += fleet.down()
    show(outcome, capsys, f"seed {seed}, {MIXED_SECONDS:g} s of faults")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """One fleet for the broker's faults."""
    with Fleet() as fleet:
        yield fleet


@pytest.mark.parametrize("kind", ["broker SIGKILL", "broker back empty", "broker back in the past"])
def test_nothing_is_lost_or_doubled_when_the_broker_dies(
    kind: str, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    first = len(fleet.accepted()) + 1
    order = Order(BROKER_TASKS, BROKER_SECONDS, 27, fleet.agents, first=first, longest=1.0)
    outcome = storm(fleet, plan(27, BROKER_SECONDS, [kind]), order)
    show(outcome, capsys, f"{kind}, {BROKER_SECONDS:g} s")

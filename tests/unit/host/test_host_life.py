"""The phases of a host's life, and what becomes of the task that its agent's pane was left with."""

from __future__ import annotations

from itertools import pairwise

import pytest

from torch_tasks.workers.host.lifecycle import PHASES, HostPhase, Lifecycle
from torch_tasks.workers.host.unfinished_task import UnfinishedDecision, decide_unfinished

OPENING, SERVING, RETIRING, LEAVING, CLOSED = HostPhase
WAYS: dict[HostPhase, list[HostPhase]] = {
    OPENING: [],
    SERVING: [SERVING],
    RETIRING: [SERVING, RETIRING],
    LEAVING: [LEAVING],
    CLOSED: [SERVING, LEAVING, CLOSED],
}


def life_at(phase: HostPhase) -> Lifecycle:
    life = Lifecycle()
    for step in WAYS[phase]:
        assert life.move_to(step)
    assert life.phase is phase
    return life


@pytest.mark.parametrize("before", HostPhase)
@pytest.mark.parametrize("after", HostPhase)
def test_only_legal_steps_are_taken(before: HostPhase, after: HostPhase) -> None:
    life, legal = life_at(before), after in PHASES[before]
    assert life.move_to(after) is legal
    assert life.phase is (after if legal else before)


def test_a_life_never_goes_back() -> None:
    order = list(HostPhase)
    assert all(order.index(after) > order.index(before) for before, afters in PHASES.items() for after in afters)
    assert all(after in PHASES[before] for before, after in pairwise([OPENING, SERVING, RETIRING, LEAVING, CLOSED]))


@pytest.mark.parametrize(
    ("phase", "is_retiring", "is_leaving"),
    [
        (OPENING, False, False),
        (SERVING, False, False),
        (RETIRING, True, False),
        (LEAVING, False, True),
        (CLOSED, False, True),
    ],
)
def test_what_a_phase_means(phase: HostPhase, is_retiring: bool, is_leaving: bool) -> None:
    life = life_at(phase)
    assert (life.is_retiring, life.is_leaving) == (is_retiring, is_leaving)


def test_a_host_that_retires_and_leaves_does_both() -> None:
    life = life_at(RETIRING)
    life.move_to(LEAVING)
    assert life.is_retiring
    assert life.is_leaving


KEEP, CLOSE, FORGET, INTERRUPT = UnfinishedDecision


@pytest.mark.parametrize(
    ("is_lost", "has_result", "may_be_in_program", "expected"),
    [
        (False, False, True, KEEP),
        (False, False, False, KEEP),  # noted as begun, and a kill came first: its message begins it anew
        (False, True, False, KEEP),  # its end is not in the record yet
        (True, True, False, CLOSE),
        (True, True, True, CLOSE),
        (True, False, True, INTERRUPT),
        (True, False, False, FORGET),
    ],
)
def test_what_becomes_of_the_task_that_the_pane_was_left_with(
    is_lost: bool, has_result: bool, may_be_in_program: bool, expected: UnfinishedDecision
) -> None:
    decision = decide_unfinished(is_lost=is_lost, has_result=has_result, may_be_in_program=may_be_in_program)
    assert decision is expected

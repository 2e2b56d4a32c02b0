"""The state machines of an agent's place in the fleet, and of its worker."""

from __future__ import annotations

import pytest

from torch_tasks.model.node import KEPT_TRANSITIONS, KeptState
from torch_tasks.model.spawn import SPAWN_TRANSITIONS, SpawnState


def test_every_state_says_what_may_follow() -> None:
    assert set(KEPT_TRANSITIONS) == set(KeptState)
    assert set(SPAWN_TRANSITIONS) == set(SpawnState)


@pytest.mark.parametrize(
    ("state", "sources"),
    [
        (SpawnState.RESERVED, set()),
        (SpawnState.READY, {SpawnState.RESERVED}),
        (SpawnState.LOST, {SpawnState.RESERVED}),
        (SpawnState.FAILED, {SpawnState.RESERVED, SpawnState.LOST}),
    ],
)
def test_a_spawned_agent_goes_forward_only(state: SpawnState, sources: set[SpawnState]) -> None:
    assert state.sources == sources


def test_a_worker_is_left_down_only_after_it_died() -> None:
    assert KeptState.QUARANTINED not in KEPT_TRANSITIONS[KeptState.RUNNING]
    assert KeptState.RUNNING not in KEPT_TRANSITIONS[KeptState.QUARANTINED]

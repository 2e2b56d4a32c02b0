"""What may become of a message."""

from __future__ import annotations

import pytest

from torch_tasks.model.message import ARRIVED, SETTLED, TRANSITIONS, MessageState


def test_every_state_says_what_may_follow() -> None:
    assert set(TRANSITIONS) == set(MessageState)


@pytest.mark.parametrize("state", MessageState)
def test_what_has_arrived_is_never_lost_again(state: MessageState) -> None:
    assert state not in ARRIVED or TRANSITIONS[state] <= ARRIVED


@pytest.mark.parametrize("state", MessageState)
def test_what_has_not_arrived_can_be_delivered_in_the_end(state: MessageState) -> None:
    reached, waiting = set(), {state}
    while waiting:
        reached |= waiting
        waiting = {after for before in waiting for after in TRANSITIONS[before]} - reached
    assert MessageState.READ in reached


@pytest.mark.parametrize(
    ("state", "sources"),
    [
        (MessageState.ACCEPTED, {"spooled", "expired", "dead"}),
        (MessageState.STAGED, {"accepted", "staged"}),
        (MessageState.ACKNOWLEDGED, {"accepted", "staged", "delivered", "expired", "dead"}),
        (MessageState.READ, {"accepted", "staged", "delivered", "acknowledged", "expired", "dead"}),
        (MessageState.EXPIRED, {"accepted", "staged", "dead"}),
        (MessageState.DEAD, {"spooled", "accepted", "staged", "expired", "dead"}),
        (MessageState.SPOOLED, set()),
    ],
)
def test_a_state_follows_only_upon_these(state: MessageState, sources: set[str]) -> None:
    assert state.sources == sources


def test_a_message_that_was_not_delivered_is_settled_only_when_it_is_given_up_or_known_to_be_taken() -> None:
    assert {str(state) for state in set(MessageState) - SETTLED} == {"spooled", "accepted", "staged", "delivered"}

"""Beat: check-ins come up when they should, each slot once, whatever happens to beat and broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from beats import Machine, checkin, fires, leads, registered
from nodes import Broker
from waiting import until

from torch_tasks.checkins.checkin import Checkin, CheckinState, Outcome
from torch_tasks.checkins.store import Checkins
from torch_tasks.fleet import fleet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("empty")]


@pytest.fixture
def store(empty: None) -> Checkins:
    return fleet().checkins


@pytest.fixture
def machine(broker: Broker, empty: None) -> Iterator[Machine]:
    machine = Machine(broker)
    yield machine
    machine.close()


def outcomes(asked: Checkin) -> list[Outcome]:
    """What became of its slots so far."""
    return [fire.outcome for fire in fires(asked)]


def queued(broker: Broker) -> int:
    """How many fires wait for a node worker."""
    return sum(broker.client.llen(name) for name in broker.client.scan_iter("torch.system*"))


def test_a_check_in_comes_up_when_it_should_and_ends(store: Checkins, machine: Machine, broker: Broker) -> None:
    beat = machine.beat()
    until(lambda: leads(beat), "beat leads")
    asked = checkin(seconds=1)
    record = store.add(asked)
    until(lambda: outcomes(asked) == [Outcome.FIRED], "it fires")
    (fire,) = fires(asked)
    assert 0 <= fire.late < 5
    assert record.slot
    assert fire.slot == record.slot.replace(microsecond=fire.slot.microsecond)
    ended = store.get(asked.id)
    assert (ended.state, ended.runs, ended.slot) == (CheckinState.ENDED, 1, None)
    assert queued(broker) == 1
    machine.node_worker()
    registered("developer-1")
    until(lambda: outcomes(asked) != [Outcome.FIRED], "it is delivered")

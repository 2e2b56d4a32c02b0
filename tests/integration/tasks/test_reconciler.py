"""Each source puts back what it knows once for each process of the broker, and again when the broker lost its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from faults import FaultyBroker, broker  # noqa: F401 - a fixture in the place of the session's

from torch_tasks import keys
from torch_tasks.broker.reconciler import Reconciler, identity_of


@dataclass
class Counting:
    """Counts how often it was asked."""

    name: str = "a source"
    count: int = 0
    ready: bool = True

    def put_back(self) -> bool:
        self.count += 1
        return self.ready


@pytest.fixture
def reconciler(broker: FaultyBroker) -> Reconciler:  # noqa: F811
    broker.client.flushall()
    return Reconciler(broker.client)


def back_empty(broker: FaultyBroker) -> None:  # noqa: F811
    broker.lose_everything()


def back_with_its_data(broker: FaultyBroker) -> None:  # noqa: F811
    broker.kill()
    broker.start()


def flushed(broker: FaultyBroker) -> None:  # noqa: F811
    broker.client.flushall()


def back_in_the_past(broker: FaultyBroker) -> None:  # noqa: F811
    broker.go_back_to(broker.settings.state_dir / "snapshot")


@pytest.mark.parametrize("happens", [back_empty, back_with_its_data, flushed, back_in_the_past])
def test_a_source_puts_back_what_it_knows_whenever_the_broker_may_have_forgotten(
    broker: FaultyBroker,  # noqa: F811
    reconciler: Reconciler,
    happens: Callable[[FaultyBroker], None],
) -> None:
    source = Counting()
    reconciler.reconcile(source)
    assert reconciler.is_known(source)
    broker.snapshot()  # in which it is known
    reconciler.reconcile(source)
    before = source.count
    reconciler.reconcile(source)
    assert source.count == before
    happens(broker)
    assert not reconciler.is_known(source)
    reconciler.reconcile(source)
    reconciler.reconcile(source)
    assert source.count == before + 1
    assert reconciler.is_known(source)


def test_a_source_that_could_not_put_back_all_is_asked_again(reconciler: Reconciler) -> None:
    source = Counting(ready=False)
    reconciler.reconcile(source)
    reconciler.reconcile(source)
    source.ready = True
    reconciler.reconcile(source)
    reconciler.reconcile(source)
    assert source.count == 3


def test_each_source_is_noted_on_its_own_and_can_be_asked_always(reconciler: Reconciler) -> None:
    one, other = Counting("one"), Counting("other")
    reconciler.reconcile(one)
    assert not reconciler.is_known(other)
    reconciler.reconcile(one, always=True)
    assert one.count == 2


def test_a_broker_that_is_restarted_while_a_source_puts_back_is_not_noted_as_told(
    broker: FaultyBroker,  # noqa: F811
    reconciler: Reconciler,
) -> None:
    class Interrupted(Counting):
        def put_back(self) -> bool:
            back_empty(broker)
            return super().put_back()

    source, before = Interrupted(), identity_of(broker.client)
    reconciler.reconcile(source)
    assert identity_of(broker.client) != before
    assert broker.client.hget(keys.RECONCILED, source.name) == before
    assert not reconciler.is_known(source)

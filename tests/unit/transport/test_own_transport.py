"""The leased transport is Torch's app's alone: nothing changes for another Celery app of the process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery
from kombu import Connection, pools
from kombu.transport import TRANSPORT_ALIASES, redis

from torch_tasks.app import app
from torch_tasks.transport import channel
from torch_tasks.transport.amqp import LeasedAMQP

URL = "redis://:secret@127.0.0.1:1/0"


@pytest.fixture
def plain() -> Celery:
    """An app of the user's own."""
    return Celery("plain", broker=URL, set_as_current=False)


@pytest.fixture
def ours() -> Iterator[Connection]:
    """A connection of Torch's app to the same place."""
    with app.connection_for_write(url=URL) as connection:
        yield connection


def test_only_torchs_app_uses_the_leased_transport(plain: Celery, ours: Connection) -> None:
    assert type(ours.transport) is channel.Transport
    assert type(ours.clone().transport) is channel.Transport
    assert type(plain.connection_for_read().transport) is redis.Transport
    assert type(Connection(URL).transport) is redis.Transport
    assert TRANSPORT_ALIASES["redis"] == "kombu.transport.redis:Transport"


def test_connections_of_two_apps_are_not_pooled_together(plain: Celery, ours: Connection) -> None:
    theirs = plain.connection_for_write()
    assert pools.connections[ours] is not pools.connections[theirs]
    assert pools.connections[ours] is pools.connections[ours.clone()]
    with pools.connections[ours].acquire() as pooled:
        assert type(pooled.transport) is channel.Transport
        assert pooled.leases is app.leases
    with pools.connections[theirs].acquire() as pooled:
        assert type(pooled.transport) is redis.Transport


def test_each_app_has_leases_of_its_own() -> None:
    first, second = (Celery(name, broker=URL, amqp=LeasedAMQP, set_as_current=False) for name in ("a", "b"))
    assert first.amqp.leases is not second.amqp.leases
    assert first.connection_for_read().leases is first.amqp.leases
    assert app.leases is app.amqp.leases


def test_others_read_a_plain_address_of_the_connection(plain: Celery, ours: Connection) -> None:
    """Flower shows the one, ``inspect stats`` sends the other as JSON."""
    assert ours.as_uri(include_password=True) == plain.connection_for_write().as_uri(include_password=True)
    assert ours.info()["transport"] == "redis"

"""Torch beside another Celery app of the same process: each has its own transport on the same URL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from nodes import Broker

STOCK, LEASED = "kombu.transport.redis:Transport", "torch_tasks.transport.channel:Transport"
PROGRAM = """
import json, os
from celery import Celery
from kombu import Connection, pools
from kombu.transport import TRANSPORT_ALIASES

before = dict(TRANSPORT_ALIASES)
url = os.environ["CELERYS_URL"]
plain = Celery("plain", broker=url, set_as_current=False)
plain.conf.update(task_default_queue="plain", broker_connection_retry_on_startup=True)

from torch_tasks import Torch
from torch_tasks.app import app as torch

@plain.task(name="nothing")
def nothing(): pass

def transport_of(connection):
    kind = type(connection.transport)
    return f"{kind.__module__}:{kind.__qualname__}"

Torch().enqueue("echo from torch")
sent = nothing.delay().id
with plain.connection_for_read() as connection:
    taken = connection.SimpleQueue("plain").get(timeout=10)
    with connection.channel() as channel:
        unsettled = channel.client.hlen("unacked")
    taken.ack()
with torch.connection_for_write() as ours, plain.connection_for_write() as theirs, Connection(url) as nobodys:
    with torch.producer_or_acquire() as our_producer, plain.producer_or_acquire() as their_producer:
        pooled = [transport_of(our_producer.connection), transport_of(their_producer.connection)]
    print(json.dumps({
        "aliases": before == TRANSPORT_ALIASES,
        "transports": [transport_of(ours), transport_of(ours.clone()), transport_of(theirs), transport_of(nobodys)],
        "pooled": pooled,
        "apart": pools.connections[ours] is not pools.connections[theirs],
        "together": pools.connections[ours] is pools.connections[ours.clone()],
        "addresses": [ours.as_uri(include_password=True), theirs.as_uri(include_password=True)],
        "told": ours.info()["transport"],
        "taken": taken.headers["id"] == sent,
        "unsettled": unsettled,
    }))
"""


@pytest.fixture
def seen(broker: Broker) -> dict[str, Any]:
    """What a process sees that has both apps."""
    broker.empty()
    environment = {
        **os.environ,
        "TORCH_BROKER_URL": broker.url,
        "CELERYS_URL": broker.celery_url,
        "TORCH_LEDGER": "off",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_another_app_of_the_process_keeps_its_own_transport(seen: dict[str, Any]) -> None:
    assert seen["aliases"]
    assert seen["transports"] == [LEASED, LEASED, STOCK, STOCK]
    assert seen["pooled"] == [LEASED, STOCK]
    assert (seen["apart"], seen["together"]) == (True, True)


def test_its_messages_are_kept_as_kombu_keeps_them(seen: dict[str, Any]) -> None:
    assert (seen["taken"], seen["unsettled"]) == (True, 1)


def test_what_others_read_of_the_connection_is_a_redis_address(seen: dict[str, Any], broker: Broker) -> None:
    ours, theirs = seen["addresses"]
    assert ours == theirs
    assert ours == broker.celery_url
    assert seen["told"] == "redis"

"""The fence asks a real primary, its replica and three Sentinels whether a write is known beyond one server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from clients import client_of
from pydantic import SecretStr
from replicas import SLOW_MS, Process, Watched, set_patience, url_of
from waiting import until

from torch_tasks import keys
from torch_tasks.broker.connection import connect
from torch_tasks.broker.fence import Fence
from torch_tasks.broker.reconciler import identity_of
from torch_tasks.broker.sentinels import Sentinels
from torch_tasks.errors import BrokerForgot, KnownToOneServer
from torch_tasks.fleet import fleet
from torch_tasks.model.broker_address import BrokerAddress


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A pair whose Sentinels promote nobody during these tests, and of which this process is a client."""
    folder = tmp_path_factory.mktemp("fenced")
    pair = Watched(folder / "broker", {})
    try:
        pair.start()
        set_patience(pair.sentinels, SLOW_MS)
        with client_of(pair, folder / "state"):
            yield pair
    finally:
        pair.end()


@contextmanager
def unreachable(*processes: Process) -> Iterator[None]:
    """These answer nothing, and refuse nothing, as behind a cut."""
    for one in processes:
        one.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in processes:
            one.send(signal.SIGCONT)


def written(name: str) -> str:
    """Write something, and say to which server process."""
    client = fleet().client
    client.set(f"{keys.PREFIX}{name}", "")
    return identity_of(client)


def is_known(identity: str) -> bool:
    """Whether the fence lets what was written pass; on a busy machine an answer may come too late once."""
    with suppress(KnownToOneServer):
        fleet().fence.require_known("it", identity)
        return True
    return False


def test_what_the_replica_has_counts_although_this_side_reaches_no_majority(watched: Watched) -> None:
    with unreachable(*watched.sentinels[1:]):
        identity = written("replicated")
        until(lambda: is_known(identity), "the replica has it")
        assert watched.replica.client.exists(f"{keys.PREFIX}replicated")


def test_without_the_replica_most_of_the_sentinels_must_say_so(watched: Watched) -> None:
    with unreachable(watched.replica):
        identity = written("alone")
        until(lambda: is_known(identity), "most of the Sentinels say so")


def test_who_is_cut_off_with_the_primary_is_told_that_nobody_else_knows(watched: Watched) -> None:
    identity = written("before the cut")
    words = r"that dev has it is known to .* alone: 0 of its 1 replicas have it"
    with unreachable(watched.replica, *watched.sentinels[1:]), pytest.raises(KnownToOneServer, match=words):
        fleet().fence.require_known("that dev has it", identity)
    until(lambda: is_known(identity), "it is known to the replica, too")


def test_what_another_server_process_has_taken_does_not_count(watched: Watched) -> None:
    written("here")
    with pytest.raises(BrokerForgot):
        fleet().fence.require_known("it", "the process before")


def test_an_address_with_one_sentinel_leads_to_the_others(watched: Watched) -> None:
    first, *others = watched.sentinels
    listed = Sentinels(address(url_of([first])))
    door = watched.primary.place
    until(lambda: listed.most_see_well(door), "the others are asked, too")
    assert not listed.most_see_well(watched.replica.place)
    with unreachable(*others):
        assert not listed.most_see_well(door)


def test_a_broker_that_sentinel_does_not_watch_is_asked_nothing(watched: Watched) -> None:
    server = watched.primary
    at_server = address("redis://{}:{}/0".format(*server.place))
    asked = server.client.get(keys.FENCE), server.client.info("stats")["total_connections_received"]
    Fence(connect(at_server), at_server).require_known("it", "whatever process that is")
    assert (server.client.get(keys.FENCE), server.client.info("stats")["total_connections_received"]) == asked


def address(url: str) -> BrokerAddress:
    """The address that this URL names."""
    return BrokerAddress(url=SecretStr(url), source="TORCH_BROKER_URL")

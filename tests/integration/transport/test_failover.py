"""A broker that Sentinel watches, or at an address that stays the same: a process goes where the primary is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from clients import client_of
from replicas import NAME, Service, Watched, is_in_step
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.app import app
from torch_tasks.broker.connection import BrokerClient, connect
from torch_tasks.broker.reconciler import Reconciler, identity_of
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.fleet import fleet
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import TaskSpec
from torch_tasks.settings import settings
from torch_tasks.tasks import recovery
from torch_tasks.transport.gate import Gate

QUICK = {"TORCH_LEASE_SECONDS": "2", "TORCH_BROKER_CONNECT_SECONDS": "1"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A pair under Sentinel, of which this process is a client."""
    folder = tmp_path_factory.mktemp("watched")
    pair = Watched(folder / "broker", {})
    try:
        pair.start()
        with client_of(pair, folder / "state", **QUICK):
            yield pair
    finally:
        pair.end()


@pytest.fixture
def mended(watched: Watched) -> Watched:
    """The same, with both servers and all Sentinels well."""
    watched.mend()
    until(watched.is_watched, "the Sentinels know all")
    return watched


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A pair at one address, of which this process is a client."""
    pair = Service(tmp_path / "broker", {})
    try:
        pair.start()
        with client_of(pair, tmp_path / "state", **QUICK):
            yield pair
    finally:
        pair.end()


def _again(client: BrokerClient, name: str) -> int:
    """Count as soon as the broker takes it."""

    def count() -> int | None:
        with suppress(BrokerUnreachable):
            return int(client.incr(name))
        return None

    return until(count, "the broker takes it")


def test_a_client_goes_on_with_the_server_that_took_over(mended: Watched) -> None:
    client = connect()
    client.incr("before")
    mended.fail_over()
    assert _again(client, "after") == 1
    assert identity_of(client) == mended.primary.client.info("server")["run_id"]


def test_celery_publishes_to_the_server_that_took_over_and_reads_results_there(mended: Watched) -> None:
    app.send_task("known", queue="one")
    mended.fail_over()

    def sent() -> bool:
        with suppress(BrokerUnreachable):
            app.send_task("known", queue="two")
            return True
        return False

    until(sent, "it is sent")
    assert mended.primary.client.llen("two") == 1
    app.backend.client.set("of Celery's backend", 1)
    assert mended.primary.client.get("of Celery's backend") == "1"


def test_a_task_of_which_the_replica_never_heard_is_there_again(mended: Watched) -> None:
    primary, heir = mended.primary, mended.replica
    with mended.out_of_step():
        Torch().enqueue("echo accepted", id="accepted-alone")
        assert primary.client.exists(keys.task_record("accepted-alone"))
        primary.end()
    mended.promote(heir)
    assert not heir.client.exists(keys.task_record("accepted-alone"))

    def is_back() -> bool:
        with suppress(BrokerUnreachable):
            recovery.settle()
            return bool(heir.client.exists(keys.task_record("accepted-alone")))
        return False

    until(is_back, "it is there again")
    assert fleet().deliveries.on_the_way([queue_for(TaskSpec(prompt="echo"))]) == {"accepted-alone"}


def test_who_is_cut_off_with_a_former_primary_does_not_go_on_with_it(mended: Watched) -> None:
    client = connect()
    client.ping()
    others = mended.sentinels[1:]
    try:
        for one in others:
            one.send(signal.SIGSTOP)

        def is_left() -> bool:
            try:
                client.incr("written alone")
            except BrokerUnreachable as error:
                return "NOQUORUM" in str(error)
            return False

        until(is_left, "it is left, for want of Sentinels that agree", 20)
        assert mended.primary.client.ping()
    finally:
        for one in others:
            one.send(signal.SIGCONT)
    assert _again(client, "together again") == 1


def test_a_primary_that_was_demoted_is_left_also_by_who_waits_there(mended: Watched) -> None:
    client, woken = connect(wait_seconds=60), threading.Event()

    def wait() -> None:
        with suppress(BrokerUnreachable):
            client.brpop(["nothing comes"], 50)
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    former, heir = mended.primary, mended.replica
    until(lambda: former.client.info("clients")["blocked_clients"] == 1, "it waits")
    mended.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", NAME)
    mended.promote(heir)
    assert woken.wait(20)
    assert _again(connect(), "demoted") == 1


def test_a_server_without_its_replicas_that_says_so_counts_as_away(service: Service) -> None:
    client = connect()
    client.ping()
    service.primary.client.config_set("min-replicas-to-write", 2)
    with pytest.raises(BrokerUnreachable, match="Not enough good replicas"):
        client.incr("alone")
    service.primary.client.config_set("min-replicas-to-write", 0)
    assert _again(client, "alone") == 1


def test_a_demoted_server_behind_a_fixed_address_is_left_at_once(service: Service) -> None:
    client = connect()
    client.incr("before")
    former, heir = service.primary, service.replica
    service.promote(heir)
    former.client.slaveof("127.0.0.1", str(heir.port))
    assert _again(client, "after") == 1
    assert heir.client.get("after") == "1"


def test_a_server_that_missed_what_its_heir_took_is_closed_also_when_it_is_primary_again(service: Service) -> None:
    """Its own process has not ended, so its identity is the one with which the fleet was reconciled."""
    client = connect()
    source = _Source()
    Gate(client).open_new()
    Reconciler(client).reconcile(source)
    former, heir = service.primary, service.replica
    until(lambda: heir.client.hget(keys.RECONCILED, source.name), "the replica has heard of it")
    service.promote(heir)
    former.client.slaveof("127.0.0.1", str(heir.port))
    until(lambda: is_in_step(former), "it is in step")
    assert _again(client, "with the heir") == 1
    gate = Gate(client)
    assert not gate.enter(identity_of(client), 60_000, 1).open
    until(lambda: former.client.hget(keys.BROKER_STATE, "pending"), "the former primary has heard of it")
    service.promote(former)
    heir.client.slaveof("127.0.0.1", str(former.port))
    assert _again(client, "with the former one") == 1
    assert not Gate(client).state().open
    assert not Reconciler(client).is_known(source)


class _Source:
    name = "a source"

    def put_back(self) -> bool:
        return True


def test_the_settings_say_nothing_of_the_password(watched: Watched) -> None:
    assert str(settings().broker()) == watched.url

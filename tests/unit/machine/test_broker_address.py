"""What people read when the broker does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import kombu.exceptions
import pytest
import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from torch_tasks.broker.connection import broker_errors, connect, unreachable
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.machine.broker import LocalBroker, dragonfly_flags, valkey_config
from torch_tasks.settings import BrokerAddress

DEFAULT = BrokerAddress(url=SecretStr("redis://127.0.0.1:6379/0"), source="the default")
CHOSEN = BrokerAddress(url=SecretStr("redis://me:s3cret@broker.example:6380/1"), source="TORCH_BROKER_URL")
BROKER = LocalBroker(program=Path("/usr/bin/x"), port=7001, password="0123abcd")


def refused() -> redis.exceptions.ConnectionError:
    """The error as redis-py raises it."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            redis.Redis(port=probe.getsockname()[1], retry=Retry(NoBackoff(), 0)).ping()
    except redis.exceptions.ConnectionError as error:
        return error
    raise AssertionError("somebody answered")


def test_names_the_address_its_source_the_reason_and_the_remedy() -> None:
    assert str(unreachable(DEFAULT, refused())) == (
        "no broker answers at redis://127.0.0.1:6379/0 (from the default): Connection refused. "
        "Start one with 'torch-tasks up' or set TORCH_BROKER_URL"
    )


def test_a_chosen_broker_is_corrected_where_it_was_chosen() -> None:
    text = str(unreachable(CHOSEN, refused()))
    assert "(from TORCH_BROKER_URL): Connection refused. Start that broker or correct TORCH_BROKER_URL" in text


@pytest.mark.parametrize(
    "error",
    [
        refused(),
        redis.exceptions.TimeoutError("Timeout connecting to server"),
        redis.exceptions.AuthenticationError("invalid username-password pair"),
        redis.exceptions.BusyLoadingError("loading"),
        redis.exceptions.InvalidResponse("Protocol error"),
        kombu.exceptions.OperationalError("Error 111"),
    ],
)
def test_every_lost_broker_is_the_one_error_and_never_shows_the_password(error: Exception) -> None:
    with pytest.raises(BrokerUnreachable) as caught, broker_errors(CHOSEN):
        raise error
    assert "redis://me:***@broker.example:6380/1" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(redis.exceptions.WatchError), broker_errors(CHOSEN):
        raise redis.exceptions.WatchError


def test_one_pool_for_one_address() -> None:
    assert connect(CHOSEN).connection_pool is connect(CHOSEN).connection_pool
    assert connect(CHOSEN).connection_pool is not connect(DEFAULT).connection_pool


def test_valkey_keeps_every_write_and_listens_on_loopback_only(tmp_path: Path) -> None:
    home = tmp_path / 'a "quoted" folder'
    lines = valkey_config(home, BROKER).splitlines()
    assert {"bind 127.0.0.1", "port 7001", "requirepass 0123abcd", "appendonly yes"} <= set(lines)
    assert "maxclients 60000" in lines  # each agent has seven connections
    assert f'dir "{tmp_path}/a \\"quoted\\" folder"' in lines


def test_dragonfly_snapshots_each_minute_and_listens_on_loopback_only(tmp_path: Path) -> None:
    lines = dragonfly_flags(tmp_path, BROKER).splitlines()
    expected = {"--bind=127.0.0.1", "--port=7001", "--requirepass=0123abcd", "--dbfilename=dump", f"--dir={tmp_path}"}
    assert expected | {"--snapshot_cron=* * * * *"} <= set(lines)
    assert all(line.startswith("--") for line in lines)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://127.0.0.1", "127.0.0.1:6379/0"),
        ("redis://:secret@127.0.0.1:6379/", "127.0.0.1:6379/0"),
        ("redis://user:secret@broker:7000/3", "broker:7000/3"),
        ("rediss://broker:7000/0", "broker:7000/0"),
        ("unix:///run/valkey.sock", "/run/valkey.sock"),
    ],
)
def test_a_broker_is_the_same_place_whatever_its_password(url: str, place: str) -> None:
    assert BrokerAddress(url=SecretStr(url), source="TORCH_BROKER_URL").place == place


def test_this_machines_own_broker_is_the_same_place_whatever_its_port() -> None:
    places = {BrokerAddress(url=SecretStr(f"redis://127.0.0.1:{p}/0"), source="torch-tasks up").place for p in (1, 2)}
    assert places == {"this machine's own"}

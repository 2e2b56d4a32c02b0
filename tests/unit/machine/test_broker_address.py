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
from torch_tasks.errors import BrokerUnreachable, NothingRuns
from torch_tasks.machine.broker import LocalBroker, dragonfly_flags, valkey_config
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_users import BrokerLogins
from torch_tasks.settings import Settings, settings

OWN = BrokerAddress.of_socket(Path("/state/broker/sock"), "torch-tasks up")
NOWHERE = BrokerAddress.of_socket(Path("/state/broker/sock"), "nothing")
CHOSEN = BrokerAddress(url=SecretStr("redis://me:s3cret@broker.example:6380/1"), source="TORCH_BROKER_URL")
BROKER = LocalBroker(program=Path("/usr/bin/x"), password="0123abcd")


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
    assert str(unreachable(OWN, refused())) == (
        "no broker answers at unix:///state/broker/sock (from torch-tasks up): Connection refused. "
        "Start it with 'torch-tasks up'"
    )


def test_without_an_address_nothing_runs_here() -> None:
    said = unreachable(NOWHERE, refused())
    assert isinstance(said, NothingRuns)
    assert said.exit_code == 4
    assert str(said) == (
        f"nothing runs here: no broker is up in {settings().state_dir}, and TORCH_BROKER_URL is not set. "
        "Start one with 'torch-tasks up', or set TORCH_BROKER_URL to your fleet's broker"
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
    assert connect(CHOSEN).connection_pool is not connect(OWN).connection_pool


def test_valkey_keeps_every_write_and_listens_on_its_socket_only(tmp_path: Path) -> None:
    home = Settings(state_dir=tmp_path / 'a "quoted" folder', broker_memory="64M")  # type: ignore[arg-type]
    logins = BrokerLogins.new("here", "n")
    lines = valkey_config(home, BROKER, logins).splitlines()
    quoted = f'{tmp_path}/a \\"quoted\\" folder/broker'
    assert {"port 0", f'unixsocket "{quoted}/sock"', "unixsocketperm 600", f'dir "{quoted}"'} <= set(lines)
    assert {"user default off -@all", "appendonly yes"} <= set(lines)
    assert not [login for login in (BROKER, *logins.logins.values()) if login.password in "\n".join(lines)]
    assert {"maxmemory 67108864", "maxmemory-policy noeviction"} <= set(lines)
    assert "maxclients 60000" in lines  # each agent has seven connections
    assert not any(line.startswith("bind") for line in lines)


def test_dragonfly_snapshots_each_minute_and_listens_on_its_socket_only(tmp_path: Path) -> None:
    lines = dragonfly_flags(Settings(state_dir=tmp_path)).splitlines()
    place = tmp_path / "broker"
    expected = {"--port=0", f"--unixsocket={place}/sock", "--unixsocketperm=600"}
    assert expected | {"--dbfilename=dump", f"--dir={place}", "--snapshot_cron=* * * * *"} <= set(lines)
    assert "--maxmemory=1073741824" in lines
    assert all(line.startswith("--") for line in lines)
    assert not any(line.startswith("--bind") for line in lines)

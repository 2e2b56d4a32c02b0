"""Somebody has the login of a node, of a program or of Flower, and does at the broker whatever that lets it do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from broker_data import without_dragonfly
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from torch_tasks import keys
from torch_tasks.broker.connection import connect
from torch_tasks.broker.users import make_users
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.machine.broker import administrators_address, start_broker, stop_broker
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_users import BrokerLogins, BrokerRole, read_logins
from torch_tasks.settings import Settings
from torch_tasks.system.processes import Processes

SECRET = "another-program:secret"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A machine's own broker, on which another program has a secret."""
    home = Settings(state_dir=tmp_path_factory.mktemp("s"), node="here")
    with without_dragonfly():
        start_broker(home)
    connect(administrators_address(home)).set(SECRET, "s3cret")
    yield home
    stop_broker(home, 20)


@pytest.fixture(params=list(BrokerRole))
def stolen(home: Settings, request: pytest.FixtureRequest) -> redis.Redis:
    """A client with the login of one role."""
    kept = read_logins(home.state.broker / "logins.json")
    assert kept
    return redis.Redis.from_url(
        BrokerAddress.of_socket(home.state.broker_socket, "torch-tasks up")
        .with_login(kept.logins[request.param])
        .url.get_secret_value(),
        decode_responses=True,
        protocol=2,
    )


ATTACKS = [
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "CONFIG SET maxmemory 1",
    "CONFIG GET *",
    "CONFIG REWRITE",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "BGREWRITEAOF",
    "MONITOR",
    "DEBUG SLEEP 1",
    "REPLICAOF 127.0.0.1 1",
    "MODULE LIST",
    "ACL LIST",
    "ACL GETUSER torch-admin",
    "ACL SETUSER torch-node-here +@all",
    "ACL LOG",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "KEYS *",
    "SELECT 1",
    f"GET {SECRET}",
    f"SET {SECRET} mine",
    f"DEL {SECRET}",
    f"DUMP {SECRET}",
    f"COPY {SECRET} {keys.PREFIX}mine",
    f"RENAME {SECRET} {keys.PREFIX}mine",
    "SUBSCRIBE another-program",
    "PSUBSCRIBE *",
    "PUBLISH another-program lies",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_no_work_is_refused(attack: str, stolen: redis.Redis, home: Settings) -> None:
    with pytest.raises(ResponseError, match=r"(?i)no permissions|not allowed"):
        stolen.execute_command(*attack.split())
    assert connect(administrators_address(home)).get(SECRET) == "s3cret"


@pytest.mark.parametrize("script", ["return redis.call('GET', KEYS[1])", f"return redis.call('GET', '{SECRET}')"])
def test_a_script_reaches_no_further(script: str, stolen: redis.Redis) -> None:
    with pytest.raises(ResponseError, match=r"(?i)no permissions"):
        stolen.eval(script, 1, SECRET)  # type: ignore[no-untyped-call]
    with pytest.raises(ResponseError, match=r"(?i)no permissions"):
        stolen.eval("return redis.call('FLUSHALL')", 0)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("stolen", [BrokerRole.VIEWER], indirect=True)
def test_flowers_login_changes_no_task_no_queue_and_no_lease(stolen: redis.Redis) -> None:
    for key in (keys.task_record("1"), keys.AGENT_REGISTRY, keys.HOLDS, keys.DELIVERIES, keys.DEAD_LETTERS):
        assert stolen.hgetall(key) == {}
        with pytest.raises(NoPermissionError):
            stolen.hset(key, "a", "b")
    with pytest.raises(NoPermissionError):
        stolen.lpush(keys.SYSTEM_QUEUE, "{}")
    with pytest.raises(NoPermissionError):
        stolen.zadd(keys.LEASES, {"a": 1})
    with pytest.raises(NoPermissionError):
        stolen.publish(keys.AUDIT, "lies")


@pytest.mark.parametrize("login", [(), ("default", ""), ("default", "s3cret"), ("torch-admin", "")])
def test_nobody_gets_in_without_a_password(home: Settings, login: tuple[str, ...]) -> None:
    client = redis.Redis(unix_socket_path=str(home.state.broker_socket), protocol=2)
    with pytest.raises(AuthenticationError):
        client.execute_command(*(("AUTH", *login) if login else ("PING",)))


def test_the_former_passwords_of_the_broker_open_nothing_after_its_restart(home: Settings) -> None:
    former = administrators_address(home)
    stop_broker(home, 20)
    with without_dragonfly():
        start_broker(home)
    with pytest.raises(BrokerUnreachable, match="refused the password"):
        connect(former).ping()


def test_another_user_who_waits_where_the_broker_was_is_sent_nothing(home: Settings) -> None:
    """Nothing listens on a port, and into the folder of the socket nobody else comes."""
    running = Processes(home.state.run).find("broker")
    assert running
    psutil.Process(running.pid).kill()
    for folder in home.state_dir.parents:  # as on a machine whose homes can be entered
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    code = f"import os, socket; os.setuid(65534); socket.socket(socket.AF_UNIX).bind({str(home.state.broker_socket)!r})"
    home.state.broker_socket.unlink(missing_ok=True)
    taken = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PermissionError" in taken.stderr
    with without_dragonfly():
        connect(start_broker(home)).ping()


def test_one_nodes_login_reads_and_makes_no_other_nodes(home: Settings) -> None:
    admin = administrators_address(home)
    theirs = BrokerLogins.new(admin.place, "there")
    make_users(admin, theirs)
    client = connect(admin.with_login(theirs.logins[BrokerRole.NODE]))
    assert client.execute_command("ACL", "WHOAMI") == "torch-node-there"
    for attack in ("ACL GETUSER torch-node-here", "ACL SETUSER torch-node-here >mine", "ACL DELUSER torch-node-here"):
        with pytest.raises(NoPermissionError):
            client.execute_command(*attack.split())

"""``torch-tasks broker`` on a broker that Torch has not started: users made there with an administrator's login."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest
import redis
from machine import Machine
from pydantic import SecretStr
from servers import Server
from waiting import until

from torch_tasks.broker.connection import connect
from torch_tasks.broker.users import change_passwords, make_users
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_users import BrokerLogin, BrokerLogins, BrokerRole


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(keeps_users=True)
    yield server
    server.end()


@pytest.fixture
def machine(server: Server) -> Iterator[Machine]:
    machine = Machine(TORCH_BROKER_URL=f"unix://{server.socket}", TORCH_NODE="here")
    yield machine
    machine.close()


def administrators(server: Server) -> dict[str, str]:
    return {"TORCH_BROKER_URL": f"unix://:s3cret@{server.socket}"}


def test_users_are_made_once_and_outlive_the_brokers_restart(server: Server, machine: Machine) -> None:
    assert "refused the password" in machine.torch("broker", "users", code=4).stderr
    assert (
        "none of Torch's: every process connects as default"
        in machine.torch("doctor", code=None, **administrators(server)).stdout
    )
    made = machine.torch("broker", "make", **administrators(server)).stdout
    assert "torch-node-here" in made
    server.end()
    server.start()
    assert "each process has its own; a command is torch-program-here" in machine.torch("doctor", code=None).stdout
    former = (machine.state / "broker-logins.json").read_text()
    machine.torch("broker", "rotate", **administrators(server))
    assert (machine.state / "broker-logins.json").read_text() != former
    assert "torch-program-here" in machine.torch("doctor", code=None).stdout
    listed = json.loads(machine.torch("broker", "users", "--json", **administrators(server)).stdout)
    assert {"torch-node-here", "torch-viewer-here"} <= {one["user"] for one in listed}

    file = machine.folder / "address"
    said = machine.torch("broker", "add", "viewer", "grafana", str(file), **administrators(server)).stdout
    address = file.read_text().strip()
    assert address.split(":")[2].split("@")[0] not in said
    assert redis.Redis.from_url(address, decode_responses=True, protocol=2).acl_whoami() == "torch-viewer-grafana"
    machine.torch("broker", "remove", "torch-viewer-grafana", **administrators(server))
    machine.torch("broker", "remove", **administrators(server))
    assert server.client.acl_users() == ["default"]
    assert not (machine.state / "broker-logins.json").exists()


def test_a_login_that_may_make_no_users_is_refused_and_all_goes_on(server: Server, machine: Machine) -> None:
    server.client.execute_command("ACL", "SETUSER", "me", "on", ">mine", "~*", "&*", "+@all", "-@admin")
    mine = {"TORCH_BROKER_URL": f"unix://me:mine@{server.socket}"}
    assert "this login may make no users on the broker at" in machine.torch("broker", "make", code=4, **mine).stderr
    assert not (machine.state / "broker-logins.json").exists()
    assert "every process connects as me" in machine.torch("doctor", code=None, **mine).stdout


def test_a_server_that_would_forget_them_gets_none(machine: Machine) -> None:
    forgetful = Server(keeps_users=False)
    try:
        said = machine.torch("broker", "make", code=4, **administrators(forgetful)).stderr
        assert "would forget its users when it restarts" in said
        assert forgetful.client.acl_users() == ["default"]
    finally:
        forgetful.end()


def silent(server: Server) -> socket.socket:
    """A connection of a process that has not logged in yet."""
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(10)
    made.connect(str(server.socket))
    return made


def logged_in(connection: socket.socket, login: BrokerLogin) -> bytes:
    connection.sendall(f"AUTH {login.user} {login.password}\r\n".encode())
    return connection.recv(100)


def test_a_connection_that_read_the_former_password_still_logs_in(server: Server) -> None:
    admin = BrokerAddress(url=SecretStr(administrators(server)["TORCH_BROKER_URL"]), source="TORCH_BROKER_URL")
    former = BrokerLogins.new(admin.place, "here")
    make_users(admin, former)
    login, slow, stuck = former.logins[BrokerRole.NODE], silent(server), silent(server)
    kept: list[BrokerLogins] = []
    changing = threading.Thread(target=lambda: change_passwords(admin, former, kept.append, login_seconds=3))
    changing.start()
    until(lambda: bool(kept), "the new passwords are written")
    assert logged_in(slow, login) == b"+OK\r\n"
    assert changing.is_alive()
    changing.join(20)
    assert stuck.recv(1) == b""  # it was ended, and comes again
    again = silent(server)
    assert logged_in(again, login).startswith(b"-WRONGPASS")
    assert logged_in(again, kept[0].logins[BrokerRole.NODE]) == b"+OK\r\n"
    for one in (slow, stuck, again):
        one.close()


def test_passwords_change_at_once_while_nobody_is_connecting(server: Server) -> None:
    admin = BrokerAddress(url=SecretStr(administrators(server)["TORCH_BROKER_URL"]), source="TORCH_BROKER_URL")
    former = BrokerLogins.new(admin.place, "here")
    make_users(admin, former)
    new = change_passwords(admin, former, lambda _: None, login_seconds=3600)
    assert connect(admin.with_login(new.logins[BrokerRole.NODE])).ping()

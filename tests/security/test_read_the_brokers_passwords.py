"""Somebody looks for the broker's passwords in processes, logs and records; each process has a login of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from broker_data import without_dragonfly
from machine import Machine
from waiting import until

from torch_tasks.broker import users
from torch_tasks.broker.connection import connect
from torch_tasks.machine.broker import administrators_address
from torch_tasks.model.broker_users import read_logins
from torch_tasks.settings import Settings

pytestmark = pytest.mark.timeout(300)

FLOOD = """
import json, os, time
from torch_tasks import Torch
torch, tasks = Torch(), []
while not os.path.exists("enough"):
    tasks.append(torch.enqueue(f"echo {len(tasks)} >> done"))
    open("count", "w").write(str(len(tasks)))
    time.sleep(0.5)
print(json.dumps([str(task.result(timeout=200).status) for task in tasks]))
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with without_dragonfly():
        machine = Machine(TORCH_NODE="here", TORCH_SERVE="true", TORCH_SERVER_PORT="0")
    machine.torch("up", "--detach", "--agent", "dev-1:developer")
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def home(machine: Machine) -> Settings:
    return Settings(state_dir=machine.state, node="here")


def passwords(home: Settings) -> set[str]:
    kept, admin = read_logins(home.state.broker / "logins.json"), administrators_address(home).login
    assert kept
    assert admin
    return {admin.password, *(login.password for login in kept.logins.values())}


def shown(process: psutil.Process) -> str:
    """What other processes of its owner see of a process."""
    try:
        return " ".join([*process.cmdline(), *(f"{name}={value}" for name, value in process.environ().items())])
    except psutil.Error:
        return ""


def test_each_process_of_a_stack_connects_as_what_it_is(machine: Machine, home: Settings) -> None:
    roles = ("node", "beat", "server", "viewer")

    def all_there() -> bool:
        return {f"torch-{role}-here" for role in roles} <= set(users.connections(administrators_address(home)))

    until(all_there, "every process has logged in", 60)
    known = {"torch-admin", "torch-program-here", *(f"torch-{role}-here" for role in roles)}
    # A connection that has yet to log in is the default user's for a moment, who may do nothing.
    until(lambda: set(users.connections(administrators_address(home))) <= known, "nobody else is there")
    client = connect(administrators_address(home))
    client.execute_command("ACL", "LOG", "RESET")
    assert machine.torch("run", "--wait", "echo hi").stdout == "hi\n"
    machine.torch("send", "dev-1", "hello")
    machine.torch("pause", "dev-1")
    machine.torch("resume", "dev-1")
    machine.torch("doctor")
    assert client.execute_command("ACL", "LOG") == []  # nothing that Torch needs was refused


def test_no_process_shows_a_password(machine: Machine, home: Settings) -> None:
    processes = [psutil.Process(), *machine.survivors()]
    assert len(processes) > 6
    for process in processes:
        assert not [password for password in passwords(home) if password in shown(process)], process


def test_no_log_and_no_record_holds_a_password(machine: Machine, home: Settings) -> None:
    files = [file for file in machine.state.rglob("*") if file.is_file()]
    holders = {file.name for file in files for password in passwords(home) if password in file.read_text("latin1")}
    assert holders == {"logins.json", "kept.json"}


def has_counted(file: Path, least: int) -> bool:
    """The flood is that high."""
    return file.exists() and int(file.read_text() or 0) >= least


def test_passwords_change_while_tasks_flow_and_nothing_is_lost(machine: Machine, home: Settings) -> None:
    former = passwords(home)
    flood = subprocess.Popen(
        [sys.executable, "-c", FLOOD], cwd=machine.work, env=machine.env, stdout=subprocess.PIPE, text=True
    )
    count = machine.work / "count"
    for number, options in enumerate(((), ("--disconnect",), ())):
        until(partial(has_counted, count, 2 * number + 1), "tasks flow")
        machine.torch("broker", "rotate", *options)
    (machine.work / "enough").touch()
    states = json.loads(flood.communicate(timeout=240)[0])
    assert set(states) == {"succeeded"}
    done = [line for file in machine.folder.rglob("done") for line in file.read_text().split()]
    assert sorted(map(int, done)) == list(range(len(states)))
    assert len(passwords(home) & former) == 1  # the administrator's


def test_a_login_in_the_address_reaches_no_child(machine: Machine, home: Settings) -> None:
    """As when TORCH_BROKER_URL stands in a person's shell."""
    admin = administrators_address(home)
    assert admin.login
    keys = str(machine.state / "keys")  # what it would have got when it joined
    guest = Machine(TORCH_BROKER_URL=admin.url.get_secret_value(), TORCH_NODE="guest", TORCH_KEYS_DIR=keys)
    try:
        guest.torch("up", "--detach", "--agent", "guest-1:guest", "--no-flower", "--no-beat")
        children = [process for process in guest.survivors() if shown(process)]
        assert len(children) > 2
        for process in children:
            assert admin.login.password not in shown(process), process
        assert guest.torch("run", "--role", "guest", "--wait", "echo hi").stdout == "hi\n"
        guest.torch("down")
    finally:
        guest.close()

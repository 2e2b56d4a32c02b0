"""``torch-tasks broker move``: a fleet goes to another, empty server while it works, or stays where it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from appended import whole_lines
from chaos.broker import free_port
from clients import client_of, register_agent
from machine import TORCH_TASKS, Machine
from replicas import SERVER, Process
from servers import Server
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.app import app
from torch_tasks.broker.connection import BrokerClient, connect
from torch_tasks.broker.moved import MoveNote, latest
from torch_tasks.errors import BrokerNotMoved, BrokerUnreachable
from torch_tasks.fleet import fleet
from torch_tasks.machine import moving
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.message import MessageState
from torch_tasks.settings import settings
from torch_tasks.signing.keyring import keyring


class Plain(Process):
    """One that a fleet may have."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {}, SERVER)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress(url=self.url, source="TORCH_BROKER_URL")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Plain, Plain]]:
    """The one that the fleet has, and an empty one."""
    both = Plain(tmp_path / "old"), Plain(tmp_path / "new")
    try:
        with client_of(both[0], tmp_path / "state", TORCH_BROKER_CONNECT_SECONDS="1"):
            yield both
    finally:
        for one in both:
            one.end()


def _moved(new: Plain) -> int:
    return moving.move(settings(), new.address, lambda _: None)


def _told(client: BrokerClient, name: str) -> str:
    def value() -> str | None:
        with suppress(BrokerUnreachable):
            return str(client.get(name))
        return None

    return until(value, "it is read")


def test_everything_goes_there_and_everyone_follows(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    client, woken = connect(), threading.Event()
    Torch().enqueue("echo moved", id="before")

    def wait() -> None:
        with suppress(BrokerUnreachable):
            connect(wait_seconds=60).brpop(["nothing comes"], 50)
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    until(lambda: old.client.info("clients")["blocked_clients"] == 1, "somebody waits")
    assert _moved(new) > 0
    assert woken.wait(10)
    assert new.client.exists(keys.task_record("before"))
    until(lambda: _works(client), "a client of before works on")
    assert new.client.get("torch.after") == "1"
    app.backend.client.set("torch.of the backend", 1)
    assert new.client.get("torch.of the backend") == "1"
    app.send_task("known", queue="torch.queue")
    assert new.client.llen("torch.queue") == 1
    assert not old.client.exists("torch.after", "torch.of the backend", "torch.queue")


def _works(client: BrokerClient) -> bool:
    with suppress(BrokerUnreachable):
        client.set("torch.after", 1)
        return True
    return False


def test_the_commands_in_the_documents_work_as_they_are_written(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    page = (Path(__file__).resolve().parents[3] / "docs" / "broker.md").read_text()
    [commands] = re.findall(r"^```bash\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    Torch().enqueue("echo moved", id="before")
    env = {**os.environ, "PATH": f"{Path(TORCH_TASKS).parent}:{os.environ['PATH']}"}
    words = ["bash", "-ec", commands.replace("redis://NEWHOST:6379/0", new.url)]
    said = subprocess.run(words, env=env, check=True, capture_output=True, text=True, timeout=120).stdout
    assert f"the fleet's broker is {new.url} now" in said
    assert f"it has moved to {new.url}: set TORCH_BROKER_URL to that" in said
    old.end()
    assert _record("before")


def test_a_machine_that_was_away_follows_when_it_comes(servers: tuple[Plain, Plain]) -> None:
    _, new = servers
    Torch().enqueue("echo moved", id="before")
    _moved(new)
    settings().state.broker_moved.unlink(missing_ok=True)  # as on a machine that heard nothing
    program = "from torch_tasks import Torch\nTorch().enqueue('echo', id='after')"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert new.client.exists(keys.task_record("after"))
    assert settings().state.broker_moved.exists()


def test_it_moves_back_to_a_server_that_it_has_left(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    connect().set("torch.one", 1)
    _moved(new)
    until(lambda: _works(connect()), "it works there")
    _moved(old)
    until(lambda: _works(connect()), "it works here")
    connect().set("torch.two", 2)
    assert (old.client.get("torch.one"), old.client.get("torch.two")) == ("1", "2")
    assert latest(settings().broker()).place == old.address.place


def test_it_stays_where_another_fleet_is(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    new.client.hset(keys.BROKER_STATE, "server", "of another fleet")
    with pytest.raises(BrokerNotMoved, match="must be empty"):
        _moved(new)
    assert not old.client.exists(keys.BROKER_MOVED)


def test_the_same_server_is_none_to_move_to(servers: tuple[Plain, Plain]) -> None:
    with pytest.raises(BrokerNotMoved, match="that the fleet has"):
        _moved(servers[0])


def test_what_fails_half_way_is_undone(servers: tuple[Plain, Plain], monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = servers
    connect().set("torch.one", 1)

    def write(*_: object, **__: object) -> int:
        new.client.set("torch.half", 1)
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(moving, "write_keys", write)
        with pytest.raises(OSError, match="full"):
            _moved(new)
    assert (old.client.exists(keys.BROKER_MOVED), new.client.dbsize()) == (0, 0)
    assert _told(connect(), "torch.one") == "1"
    assert _moved(new) > 0


MOVER = """
import os, signal, sys
from torch_tasks.machine import moving
from torch_tasks.settings import settings
from torch_tasks.model.broker_address import BrokerAddress
where, url = sys.argv[1:]
moving.FENCE_SECONDS = 2
place, name = (moving._Fence, where) if hasattr(moving._Fence, where) else (moving, where)
real, calls = getattr(place, name), []
def killed(*words):
    calls.append(1)
    answer = real(*words)
    if name != "_end_connections" or len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
setattr(place, name, killed)
moving.move(settings(), BrokerAddress(url=url, source="TORCH_BROKER_URL"), print)
"""


@pytest.mark.parametrize(
    ("where", "is_moved"),
    [("put", False), ("renew", False), ("_copy", False), ("make_lasting", True), ("_end_connections", True)],
)
def test_a_mover_that_is_killed_has_moved_everything_or_nothing(
    where: str, is_moved: bool, servers: tuple[Plain, Plain]
) -> None:
    old, new = servers
    connect().set("torch.one", 1)
    ended = subprocess.run([sys.executable, "-c", MOVER, where, new.url], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert _told(connect(), "torch.one") == "1"
    until(lambda: _works(connect()), "it works")
    there, elsewhere = (new, old) if is_moved else (old, new)
    assert there.client.get("torch.after") == "1"
    assert not elsewhere.client.exists("torch.after")
    if not is_moved:
        until(lambda: not old.client.exists(keys.BROKER_MOVED), "what it said is over")
        assert _moved(new) > 0


def test_while_it_is_moved_nobody_writes_and_all_are_told_why(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    note = MoveNote(to=new.url, number=1).signed()
    old.client.set(keys.BROKER_MOVED, note.model_dump_json(), ex=60)
    with pytest.raises(BrokerUnreachable, match="is being moved to"):
        connect().set("torch.one", 1)


def test_a_note_that_nobody_of_the_fleet_signed_moves_nobody(servers: tuple[Plain, Plain], enforced: None) -> None:
    old, new = servers
    keyring(settings())
    note = MoveNote(to=new.url, number=1, is_over=True)
    old.client.set(keys.BROKER_MOVED, note.model_dump_json())
    with fleet().client.pipeline() as pipe:
        pipe.set("torch.one", 1).execute()
    assert old.client.get("torch.one") == "1"


def test_a_machine_without_keys_is_told_and_does_not_make_itself_a_fleet(
    servers: tuple[Plain, Plain], enforced: None
) -> None:
    old, new = servers
    note = MoveNote(to=new.url, number=1, is_over=True)
    old.client.set(keys.BROKER_MOVED, note.model_dump_json())
    with pytest.raises(BrokerUnreachable, match="torch-tasks node invite"):
        connect().ping()
    assert not settings().keys_folder.exists()


def test_it_moves_on_from_a_server_that_still_says_that_it_was_left_once(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    connect().set("torch.one", 1)
    _moved(new)
    said = str(old.client.get(keys.BROKER_MOVED))
    _moved(old)
    old.client.set(keys.BROKER_MOVED, said)  # as when the mover was killed before it could delete it
    assert _told(connect(), "torch.one") == "1"
    assert _moved(new) > 0
    assert new.client.get("torch.one") == "1"


def test_a_move_that_took_too_long_moves_nothing(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    connect().set("torch.one", 1)

    def say(words: str) -> None:
        old.client.delete(keys.BROKER_MOVED)  # as when its time was over

    with pytest.raises(BrokerNotMoved, match="took too long"):
        moving.move(settings(), new.address, say)
    assert not new.client.exists("torch.one")
    assert _moved(new) > 0


def test_a_mover_that_was_held_up_leaves_what_another_one_has_moved_alone(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    connect().set("torch.one", 1)

    def say(words: str) -> None:
        if words == "everyone waits":
            old.client.delete(keys.BROKER_MOVED)  # as when its time was over
            assert _moved(new) > 0

    with pytest.raises(BrokerNotMoved, match="another mover"):
        moving.move(settings(), new.address, say)
    assert _told(connect(), "torch.one") == "1"
    assert new.client.get("torch.one") == "1"


def test_a_machine_is_told_where_the_former_server_is_gone(servers: tuple[Plain, Plain]) -> None:
    old, new = servers
    Torch().enqueue("echo moved", id="before")
    _moved(new)
    settings().state.broker_moved.unlink(missing_ok=True)
    old.end()
    subprocess.run([TORCH_TASKS, "broker", "follow", new.url], check=True, timeout=60)
    assert until(lambda: _record("before"), "it is found there")


def _record(task_id: str) -> bool:
    with suppress(BrokerUnreachable):
        return fleet().records.state(task_id) is not None
    return False


def test_a_machine_whose_address_is_changed_keeps_what_it_had_enqueued(
    servers: tuple[Plain, Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = servers
    Torch().enqueue("echo moved", id="before")
    _moved(new)
    _told(connect(), keys.FLEET_FORMAT)
    new.client.delete(keys.task_record("before"))  # as a server that forgets
    old.end()
    monkeypatch.setenv("TORCH_BROKER_URL", new.url)
    program = "from torch_tasks.tasks import recovery\nrecovery.restore_all()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert new.client.exists(keys.task_record("before"))


def test_what_a_machine_had_accepted_before_ends_once_when_its_address_is_changed() -> None:
    """Nothing of it is on the new server, which forgets all: a task never sent, one that was, and a message."""
    machine = Machine()
    old, new = Plain(machine.folder / "old"), Plain(machine.folder / "new")
    done, heard = machine.folder / "done", machine.folder / "heard"
    try:
        with client_of(old, machine.state, TORCH_BROKER_CONNECT_SECONDS="1") as torch:
            register_agent("dev-1", "developer")
            torch.enqueue(f"echo sent >> {done}", id="sent")
            old.send(signal.SIGSTOP)
            assert torch.enqueue(f"echo spooled >> {done}", id="spooled", spool=True).spooled
            assert torch.send("dev-1", f"echo it >> {heard}").state is MessageState.SPOOLED
            old.send(signal.SIGCONT)
            assert _moved(new) > 0
            old.end()
            new.client.flushall()
        with client_of(new, machine.state) as torch:
            machine.env |= {name: value for name, value in os.environ.items() if name.startswith("TORCH_")}
            machine.start("node", "--agent", "dev-1:developer")
            for task_id in ("sent", "spooled"):
                assert torch.task(task_id).result(timeout=60).succeeded
            until(lambda: whole_lines(heard), "the message was put into the pane", 60)
        assert whole_lines(done) == ["sent", "spooled"]
        assert whole_lines(heard) == ["it"]
    finally:
        machine.close()
        for one in (old, new):
            one.end()


def test_users_go_along_and_stay_when_the_address_is_changed() -> None:
    ports = free_port(), free_port()
    both = [Server(keeps_users=True, port=port) for port in ports]
    machine = Machine(TORCH_BROKER_URL=f"redis://127.0.0.1:{ports[0]}/0", TORCH_NODE="here")
    try:
        admin = {"TORCH_BROKER_URL": f"redis://:s3cret@127.0.0.1:{ports[0]}/0"}
        machine.torch("broker", "make", **admin)
        machine.torch("broker", "move", f"redis://127.0.0.1:{ports[1]}/0", **admin)
        assert "torch-program-here" in both[1].client.acl_users()
        assert "default" not in machine.torch("run", "echo 1", "--id", "one", code=None).stderr
        assert both[1].client.exists(keys.task_record("one"))
        both[0].end()
        (machine.state / "broker-moved.json").unlink()  # as on a machine that heard nothing
        machine.torch("broker", "follow", f"redis://127.0.0.1:{ports[1]}/0")
        machine.env["TORCH_BROKER_URL"] = f"redis://127.0.0.1:{ports[1]}/0"
        machine.torch("run", "echo 2", "--id", "two", code=None)
        assert both[1].client.exists(keys.task_record("two"))
    finally:
        machine.close()
        for one in both:
            one.end()

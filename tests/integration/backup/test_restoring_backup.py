"""A backup taken while the fleet works has each task whole; a backup or restoring that is killed harms nothing."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from bare_servers import BareServer, bare_server
from clients import client_of
from machine import TORCH_TASKS
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.backup.archive import Archive
from torch_tasks.backup.restoring import RAISED_BY, BrokerPart
from torch_tasks.backup.taking import take
from torch_tasks.backup.verifying import verified
from torch_tasks.broker.connection import connect
from torch_tasks.errors import FleetNotEmpty
from torch_tasks.fleet import fleet
from torch_tasks.settings import settings
from torch_tasks.store.fleet_copy import FleetCopy
from torch_tasks.store.key_copies import KeyCopy, names, read_keys
from torch_tasks.store.key_families import Fate
from torch_tasks.transport.envelope import message_id
from torch_tasks.transport.gate import Gate

pytestmark = pytest.mark.timeout(300)
TASKS = 400


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareServer]:
    """A broker with many open tasks and one that has ended."""
    with bare_server() as server:
        Gate(redis.Redis(unix_socket_path=str(server.socket), decode_responses=True, protocol=2)).open_new()
        with client_of(server, tmp_path_factory.mktemp("source")) as torch:  # type: ignore[arg-type]
            torch.enqueue("true", agent="nobody", id="ended")
            torch.task("ended").cancel()
            torch.enqueue_many([{"prompt": "true", "agent": "nobody", "id": f"t{one}"} for one in range(TASKS)])
            server.client.hset(keys.AGENT_INCARNATION, "nobody", 7)
        yield server


@pytest.fixture
def torch(source: BareServer, tmp_path: Path) -> Iterator[Torch]:
    with client_of(source, tmp_path / "state") as torch:  # type: ignore[arg-type]
        yield torch


@pytest.fixture
def archive(torch: Torch, tmp_path: Path) -> Path:
    take(tmp_path / "fleet.backup", fleet(), None)
    return tmp_path / "fleet.backup"


@pytest.fixture
def empty() -> Iterator[BareServer]:
    with bare_server() as server:
        yield server


def run(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [TORCH_TASKS, *words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_at(process: subprocess.Popen[str], phase: Callable[[], object]) -> None:
    """Kill it as soon as it is so far, unless it ends before."""
    until(lambda: phase() or process.poll() is not None, "it has begun", seconds=60)
    process.kill()
    process.communicate()


def content(client: redis.Redis) -> dict[str, Any]:
    wanted = names(client, lambda fate: fate is Fate.KEPT)
    # In which order a server names the fields of a hash or the members of a set is its own affair.
    return {
        one.name: sorted(one.value) if one.kind in ("hash", "set") else one.value
        for one in read_keys(client, wanted)
        if one.name != keys.AUDIT
    }


def whole(copies: list[KeyCopy]) -> set[str]:
    """The tasks of a copy, each of which must have ended in it or have its message."""
    by_name: dict[str, KeyCopy] = {one.name: one for one in copies if not one.adds}
    messages = {message_id(text) for one in copies if one.kind == "list" for text in one.value}
    known = {member for member, _ in by_name[keys.TASK_STATUS].value}
    records = {name.removeprefix(keys.task_record("")) for name in by_name if name.startswith(keys.task_record(""))}
    assert records == known
    for task_id in known:
        state = dict(by_name[keys.task_record(task_id)].value)["state"]
        assert state == "cancelled" or (state == "queued" and task_id in messages)
    return known


def test_each_task_is_open_or_has_ended_in_a_copy_while_tasks_come_and_end(torch: Torch) -> None:
    leaving, numbers = threading.Event(), count()

    def work() -> None:
        while not leaving.is_set():
            name = f"busy{next(numbers)}"
            torch.enqueue("true", agent="nobody", id=name)
            if not name.endswith(("3", "7")):
                torch.task(name).cancel()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        found = []
        for _ in range(8):
            copy = FleetCopy(connect(settings().broker(), decoded=False))
            known = whole(list(copy.copies()))
            assert copy.ended + len(copy.open) == len(known)
            assert copy.without_message == []
            found.append(len(known))
    finally:
        leaving.set()
        worker.join()
    assert found == sorted(found)
    assert found[-1] > found[0] > TASKS  # it worked meanwhile


def test_what_was_there_is_there_again_and_no_number_goes_back(
    archive: Path, empty: BareServer, tmp_path: Path
) -> None:
    before = content(connect(settings().broker(), decoded=False))
    with client_of(empty, tmp_path / "elsewhere"):  # type: ignore[arg-type]
        found, signer = verified(archive, settings())
        assert signer.startswith("node ")
        BrokerPart(found, fleet()).restore(replace=False)
        assert content(empty.client) == before
        assert empty.client.hgetall(keys.AGENT_INCARNATION) == {b"nobody": b"%d" % (7 + RAISED_BY)}
        with pytest.raises(FleetNotEmpty, match="is not empty: it has"):
            BrokerPart(found, fleet()).restore(replace=False)
        empty.client.hset(keys.AGENT_INCARNATION, "nobody", 5000)
        empty.client.hset(keys.task_record("later"), "state", "queued")
        BrokerPart(found, fleet()).restore(replace=True)
        assert content(empty.client) == before
        assert empty.client.hgetall(keys.AGENT_INCARNATION) == {b"nobody": b"5000"}
        assert not fleet().gate.state().open
        until(lambda: fleet().gate.enter(fleet().gate.state().identity, 10, 0).open, "the gate opens")


def test_a_restoring_that_was_killed_keeps_the_gate_closed_until_it_is_repeated(
    archive: Path, empty: BareServer, tmp_path: Path
) -> None:
    before = content(connect(settings().broker(), decoded=False))
    with client_of(empty, tmp_path / "elsewhere"):  # type: ignore[arg-type]
        gate = Gate(connect())
        for phase in (gate.being_restored, lambda: empty.client.exists(keys.task_record("t1"))):
            kill_at(run("restore", str(archive), "--only", "broker"), phase)
            if gate.being_restored():
                identity = gate.state().identity
                assert not [one for one in range(5) if gate.enter(identity, 0, 0).open]
        other = tmp_path / "other.backup"
        if gate.being_restored():
            with pytest.raises(FleetNotEmpty, match="was interrupted: repeat that one"):
                BrokerPart(other_archive(archive, other), fleet()).restore(replace=False)
        again = run("restore", str(archive), "--only", "broker", *([] if gate.being_restored() else ["--replace"]))
        said = again.communicate()
        assert again.returncode == 0, said
        assert gate.being_restored() is None
        assert content(empty.client) == before


def other_archive(archive: Path, place: Path) -> Archive:
    """The same under another name."""
    place.write_bytes(archive.read_bytes())
    found = Archive(place)
    found.manifest = found.manifest.model_copy(update={"id": "another"})
    return found


def test_a_backup_that_was_killed_leaves_the_former_as_it_was(archive: Path) -> None:
    before = archive.read_bytes()
    for size in (0, 1, 20_000):
        kill_at(run("backup", str(archive), "--without-keys"), partial(_written, archive, size))
        verified(archive, settings())
    if archive.read_bytes() == before:  # not a single one was quicker than its end
        assert list(archive.parent.glob(".*.part"))
    take(archive, fleet(), None)
    verified(archive, settings())
    assert list(archive.parent.glob(".*.part")) == []


def _written(archive: Path, size: int) -> bool:
    return any(one.stat().st_size >= size for one in archive.parent.glob(".*.part"))


def test_the_backup_of_another_fleet_is_refused(archive: Path, empty: BareServer, tmp_path: Path) -> None:
    stranger = {"TORCH_KEYS_DIR": str(tmp_path / "stranger"), "TORCH_BROKER_URL": empty.url}
    made = run("keys", "list", **stranger)
    made.communicate()
    for words in (("backup", "verify", str(archive)), ("restore", str(archive), "--only", "broker")):
        refused = run(*words, **stranger)
        assert "is of fleet" in refused.communicate()[1]
        assert refused.returncode == 5
    assert content(empty.client) == {}

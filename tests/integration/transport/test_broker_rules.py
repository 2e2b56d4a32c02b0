"""What DragonflyDB asks of its clients, and what is promised when there is no broker."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from kombu import Producer
from kombu.exceptions import OperationalError
from nodes import Broker

from torch_tasks import Torch, keys
from torch_tasks.broker.scripts import Scripts
from torch_tasks.errors import BrokerUnreachable, TaskNotFound

ROOT = Path(__file__).parents[3]
HOUSES = [ROOT / folder for folder in ("torch_tasks", "workers", "beat")]
SOURCES = [path for house in HOUSES for kind in ("*.py", "*.lua") for path in house.rglob(kind)]
"""What a script may do is checked in tests/unit/broker/test_lua_rules.py."""


@pytest.mark.parametrize(
    "forbidden",
    [r"__key(space|event)@", r"['\"](OBJECT|FUNCTION|FCALL|CLUSTER|BGREWRITEAOF|WAITAOF)\b", r"notify-keyspace-events"],
)
def test_nothing_uses_what_dragonflydb_does_not_have(forbidden: str) -> None:
    offenders = [str(path) for path in SOURCES if re.search(forbidden, path.read_text())]
    assert offenders == []


LUA = """\
-- KEYS: hash, *others
-- ARGV: *fields, note
local function put()
  redis.call('HSET', KEY.hash, unpack(ARG.fields))
  return {redis.call('HGET', KEY.hash, 'b'), redis.call('EXISTS', unpack(KEY.others)), ARG.note}
end
"""


def test_a_script_is_loaded_before_it_is_called_and_again_by_a_broker_that_lost_it(
    own_broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "some.lua").write_text(LUA)
    put = Scripts(tmp_path / "some.py")["put"]
    values = {"hash": "h", "others": ["h", "none", "h"], "fields": {"a": 1, "b": "two"}, "note": None}
    for decode, answer in ((True, ["two", 2, ""]), (False, [b"two", 2, b""])):
        client = redis.Redis.from_url(own_broker.url, protocol=2, decode_responses=decode)
        errors = client.info("errorstats")
        assert put(client, **values) == answer
        assert put(client, **values) == answer
        assert client.info("errorstats") == errors, "nothing was called that had not been loaded"
        for transaction in (True, False):
            client.script_flush()
            with client.pipeline(transaction=transaction) as pipe:
                put(pipe, **values)
                pipe.get("none")
                assert pipe.execute() == [answer, None]
        client.script_flush()
        assert put(client, **values) == answer


def test_a_list_of_any_length_reaches_a_script(broker: Broker, tmp_path: Path) -> None:
    lua = "-- KEYS: one\n-- ARGV: *some\nlocal function last()\n  return {#ARG.some, ARG.some[#ARG.some]}\nend\n"
    (tmp_path / "some.lua").write_text(lua)
    for length in (0, 1, 999, 1000, 20_000):
        answer = Scripts(tmp_path / "some.py")["last"](broker.client, one="none", some=range(length))
        assert answer == [length, str(length - 1)][: 2 if length else 1]


def test_every_key_is_below_the_prefix_or_is_celerys_own(torch: Torch, broker: Broker) -> None:
    torch.enqueue("true", role="developer", skills=["python"])
    celerys = ("_kombu.", "torch.")
    names = [name for name in broker.client.scan_iter() if not name.startswith(celerys)]
    assert {keys.TASK_STATUS, keys.DEMANDED_QUEUES} <= set(names)
    assert all(name.startswith(keys.PREFIX) for name in names)


def enqueue(broker: Broker) -> subprocess.CompletedProcess[str]:
    """Enqueue a task from another program; it prints the error's type and text."""
    script = (
        "from torch_tasks import Torch\n"
        "try: print('accepted', Torch().enqueue('true', id='lost-1', role='developer').id)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    env = {**os.environ, "TORCH_BROKER_URL": broker.url, "TORCH_BROKER_CONNECT_SECONDS": "0.5"}
    return subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)


def test_without_a_broker_enqueue_says_where_it_was_missed_and_nothing_appears_later(own_broker: Broker) -> None:
    address, password = own_broker.url.split("@")[1], own_broker.url.split(":")[2].split("@")[0]
    own_broker.stop()
    said = enqueue(own_broker)
    assert said.stdout.startswith("BrokerUnreachable ")
    assert address in said.stdout
    assert password not in said.stdout + said.stderr
    own_broker.start()
    assert own_broker.client.keys("*") == [keys.BROKER_STATE]
    assert enqueue(own_broker).stdout == "accepted lost-1\n"


def test_a_broker_that_takes_connections_and_says_nothing_is_waited_for_once() -> None:
    """A frozen one: its kernel goes on to answer for it."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        frozen.setblocking(False)
        url = f"redis://127.0.0.1:{frozen.getsockname()[1]}/0"
        env = {**os.environ, "TORCH_BROKER_URL": url, "TORCH_BROKER_CONNECT_SECONDS": "0.5"}
        script = "from torch_tasks.broker.connection import connect; connect().ping()"
        said = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
        assert "BrokerUnreachable: no broker answers" in said.stderr
        frozen.accept()[0].close()
        with pytest.raises(BlockingIOError):
            frozen.accept()


def test_a_task_whose_publishing_fails_leaves_no_record(torch: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OperationalError("Connection reset by peer")

    monkeypatch.setattr(Producer, "publish", broken)
    with pytest.raises(BrokerUnreachable, match="no broker answers at "):
        torch.enqueue("true", id="unpublished-1")
    with pytest.raises(TaskNotFound):
        torch.task("unpublished-1").record()
    assert "unpublished-1" not in {record.spec.id for record in torch.tasks()}

"""Keys of every type are copied from one server to another, also to one of another kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from bare_servers import KINDS, bare_server

from torch_tasks import keys
from torch_tasks.errors import Unreadable
from torch_tasks.store.key_copies import KeyCopy, delete_keys, names, read_keys, write_keys
from torch_tasks.store.key_families import Fate

ODD = "a\x00\n\ufffd".encode() + b"\xff\xfe"
INBOX = keys.inbox("dev", "normal")


@pytest.fixture(scope="module")
def source() -> Iterator[redis.Redis]:
    with bare_server() as server:
        yield server.client


@pytest.fixture(scope="module", params=KINDS)
def target(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with bare_server(request.param) as server:
        yield server.client


@pytest.fixture(autouse=True)
def empty(source: redis.Redis, target: redis.Redis) -> None:
    source.flushall()
    target.flushall()


def copy_all(source: redis.Redis, target: redis.Redis) -> list[str]:
    wanted = names(source, lambda fate: fate is not Fate.EPHEMERAL)
    lines = [copy.line() for copy in read_keys(source, wanted)]
    assert write_keys(target, map(KeyCopy.read, lines)) == len(wanted)
    return wanted


def test_every_type_arrives_as_it_was(source: redis.Redis, target: redis.Redis) -> None:
    source.set(keys.FLEET_KEYS, ODD)
    source.set(keys.done_order("empty"), b"")
    source.hset(keys.task_record("t1"), mapping={b"spec": ODD, b"empty": b"", b"state": b"queued"})
    source.rpush("torch.any.any\x06\x163", *(b"%d" % number for number in range(250)), ODD)
    source.sadd(keys.DEMANDED_QUEUES, b"one", ODD)
    source.zadd(keys.TASK_STATUS, {b"t1": 1764482400123456, b"t2": -0.25, ODD: float("inf")})
    wanted = copy_all(source, target)
    assert len(wanted) == 6
    for name in wanted:
        assert target.type(name) == source.type(name)
        assert target.ttl(name) == -1
    assert target.get(keys.FLEET_KEYS) == ODD
    assert target.get(keys.done_order("empty")) == b""
    assert target.hgetall(keys.task_record("t1")) == source.hgetall(keys.task_record("t1"))
    assert target.lrange("torch.any.any\x06\x163", 0, -1) == source.lrange("torch.any.any\x06\x163", 0, -1)
    assert target.smembers(keys.DEMANDED_QUEUES) == {b"one", ODD}
    everything = {"name": keys.TASK_STATUS, "start": 0, "end": -1, "withscores": True}
    assert target.zrange(**everything) == source.zrange(**everything)


def test_what_was_there_before_is_replaced_whatever_it_was(source: redis.Redis, target: redis.Redis) -> None:
    source.hset(keys.task_record("t1"), "state", "queued")
    target.set(keys.task_record("t1"), "something else")
    copy_all(source, target)
    assert target.hgetall(keys.task_record("t1")) == {b"state": b"queued"}


def test_what_is_kept_for_a_while_is_kept_for_as_long_as_it_had_left(source: redis.Redis, target: redis.Redis) -> None:
    source.set(keys.done_order("one"), "done", px=100_000)
    copy_all(source, target)
    assert 90_000 < target.pttl(keys.done_order("one")) <= 100_000


def test_what_a_group_had_and_did_not_acknowledge_is_given_out_again(source: redis.Redis, target: redis.Redis) -> None:
    ids = [source.xadd(INBOX, {"id": f"m{number}"}) for number in range(4)]
    source.xgroup_create(INBOX, "receiver", "0")
    source.xreadgroup("receiver", "receiver", {INBOX: ">"}, count=3)
    source.xack(INBOX, "receiver", ids[0])
    source.xdel(INBOX, ids[0])
    copy_all(source, target)
    ((_, entries),) = target.xreadgroup("receiver", "receiver", {INBOX: ">"})
    assert entries == [(one, {b"id": b"m%d" % number}) for number, one in enumerate(ids) if number]


def test_what_is_no_key_of_the_fleets_and_what_is_ephemeral_stays_behind(
    source: redis.Redis, target: redis.Redis
) -> None:
    source.set("somebody:elses", "x")
    source.set(keys.BEAT_LEADER, "beat")
    source.hset(keys.RECONCILED, "ledger", "process")
    source.sadd(keys.ACCOUNTS, "anthropic")
    assert copy_all(source, target) == [keys.ACCOUNTS]
    assert target.keys("*") == [keys.ACCOUNTS.encode()]


def test_a_key_that_has_gone_since_it_was_named_is_no_copy(source: redis.Redis) -> None:
    source.sadd(keys.ACCOUNTS, "anthropic")
    assert [one.name for one in read_keys(source, [keys.HOLDS, keys.ACCOUNTS])] == [keys.ACCOUNTS]
    delete_keys(source, [keys.ACCOUNTS, keys.HOLDS])
    assert list(read_keys(source, [keys.ACCOUNTS])) == []


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"name": "x", "kind": "module", "value": 1}', '{"name": "x"}'])
def test_a_line_that_is_no_copy_is_refused(line: str) -> None:
    with pytest.raises(Unreadable, match="no copy of a key"):
        KeyCopy.read(line)

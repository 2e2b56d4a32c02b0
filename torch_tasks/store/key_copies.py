"""Copies keys from one server to another by their types, so that the two may be of different kinds.

Each key is read in one step. What belongs together in several keys is the caller's to look after. The clients must not
decode responses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import redis

from torch_tasks.errors import Unreadable
from torch_tasks.store.key_families import Fate, fate_of

_AT_ONCE = 100
"""So many keys are read in one step, and so many parts of one are written in one command."""
_TRIES = 3

_Part = TypeVar("_Part")


class KeyCopy(NamedTuple):
    """What a key holds."""

    name: str
    kind: str
    """Its type, as the broker calls it."""
    value: Any
    """Texts, or lists of texts; bytes that are no UTF-8 are kept as lone surrogates."""
    left_ms: int | None = None
    """For how long it is kept; None: for ever."""
    adds: bool = False
    """Whether this is added to what the key holds already, instead of replacing it."""

    def line(self) -> str:
        """As a line of a file."""
        return json.dumps(self._asdict(), separators=(",", ":"))

    @classmethod
    def read(cls, line: str) -> KeyCopy:
        """From :meth:`line`; :class:`Unreadable` if it is none."""
        try:
            found = cls(**json.loads(line))
            _WRITERS[found.kind]
        except (ValueError, TypeError, KeyError) as error:
            raise Unreadable(f"it is no copy of a key: {error!r}") from None
        return found


def names(client: redis.Redis, wanted: Callable[[Fate], bool]) -> list[str]:
    """The names of the fleet's keys whose fate is wanted, each once."""
    found = {_text(name) for name in client.scan_iter(count=1000)}
    return sorted(name for name in found if (fate := fate_of(name)) is not None and wanted(fate))


def read_keys(client: redis.Redis, wanted: Iterable[str]) -> Iterator[KeyCopy]:
    """Copies of those of these keys that exist."""
    for some in _portions(wanted):
        left: list[str] = some
        for _ in range(_TRIES):  # one that has become another type meanwhile is read again
            copies, left = _read(client, left)
            yield from copies
            if not left:
                break


def write_keys(client: redis.Redis, copies: Iterable[KeyCopy], *, guard: Callable[[Any], None] | None = None) -> int:
    """Make each key what its copy says, whatever it was before; returns how many there were.

    A ``guard`` begins each transaction of some of them, and raises if they must not be written.
    """
    count = 0
    for some in _portions(copies):
        with client.pipeline(transaction=guard is not None) as pipe:
            if guard:
                guard(pipe)
            for copy in some:
                _write(pipe, copy)
            pipe.execute()
        count += len(some)
    return count


def delete_keys(client: redis.Redis, unwanted: Iterable[str], *, guard: Callable[[Any], None] | None = None) -> None:
    """A ``guard`` is as in :func:`write_keys`."""
    for some in _portions(unwanted):
        with client.pipeline(transaction=guard is not None) as pipe:
            if guard:
                guard(pipe)
            pipe.delete(*map(_bytes, some))
            pipe.execute()


def _portions(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    left = iter(parts)
    while some := list(islice(left, _AT_ONCE)):
        yield some


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(client: redis.Redis, some: Collection[str]) -> tuple[list[KeyCopy], list[str]]:
    """Copies of these keys, and the names of those that have to be read again."""
    with client.pipeline(transaction=False) as pipe:
        for name in some:
            pipe.type(_bytes(name))
        kinds = {name: _text(kind) for name, kind in zip(some, pipe.execute(), strict=True)}
    there = [name for name in some if kinds[name] in _READERS]
    if not there:
        return [], []
    groups = {name: _groups(client, name) for name in there if kinds[name] == "stream"}
    with client.pipeline(transaction=True) as pipe:
        for name in there:
            _READERS[kinds[name]](pipe, _bytes(name))
            pipe.pttl(_bytes(name))
        answers = pipe.execute(raise_on_error=False)
    copies, again = [], []
    for name, found, left in zip(there, answers[::2], answers[1::2], strict=True):
        if isinstance(found, redis.ResponseError):
            again.append(name)
        elif isinstance(found, Exception):
            raise found
        elif found or found == b"":  # else it has gone meanwhile
            value = _PORTABLE[kinds[name]](found)
            if name in groups:
                value = {"entries": value, "groups": groups[name]}
            copies.append(KeyCopy(name, kinds[name], value, int(left) if int(left) > 0 else None))
    return copies, again


def _groups(client: redis.Redis, name: str) -> dict[str, str]:
    """From where each group of a stream is to go on: what was given out and not acknowledged is given out again."""
    found = {}
    try:
        for group in client.xinfo_groups(_bytes(name)):
            at = _text(group["last-delivered-id"])
            if int(group["pending"]):
                first = client.xpending(_bytes(name), group["name"])["min"]
                at = _just_before(_text(first)) if first else at
            found[_text(group["name"])] = at
    except redis.ResponseError:  # the stream has gone meanwhile
        return {}
    return found


def _just_before(entry: str) -> str:
    ms, _, number = entry.partition("-")
    if int(number):
        return f"{ms}-{int(number) - 1}"
    return f"{int(ms) - 1}-{(1 << 64) - 1}" if int(ms) else "0-0"


_READERS: dict[str, Callable[[Any, bytes], object]] = {
    "string": lambda pipe, name: pipe.get(name),
    "list": lambda pipe, name: pipe.lrange(name, 0, -1),
    "set": lambda pipe, name: pipe.smembers(name),
    "zset": lambda pipe, name: pipe.zrange(name, 0, -1, withscores=True),
    "hash": lambda pipe, name: pipe.hgetall(name),
    "stream": lambda pipe, name: pipe.xrange(name),
}
_PORTABLE: dict[str, Callable[[Any], Any]] = {
    "string": lambda found: _text(found),
    "list": lambda found: [_text(one) for one in found],
    "set": lambda found: sorted(_text(one) for one in found),
    "zset": lambda found: [[_text(one), repr(float(score))] for one, score in found],
    "hash": lambda found: [[_text(field), _text(value)] for field, value in found.items()],
    "stream": lambda found: [
        [_text(entry), [_text(word) for pair in fields.items() for word in pair]] for entry, fields in found
    ],
}


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(pipe: Any, copy: KeyCopy) -> None:
    name = _bytes(copy.name)
    if not copy.adds:
        pipe.delete(name)
    _WRITERS[copy.kind](pipe, name, copy.value)
    if copy.left_ms is not None:
        pipe.pexpire(name, copy.left_ms)


def _in_parts(command: str, flat: Callable[[Any], list[str]]) -> Callable[[Any, bytes, Any], None]:
    """Writes the parts of a value by one command for some at a time."""

    def write(pipe: Any, name: bytes, value: Any) -> None:
        for some in _portions(value):
            pipe.execute_command(command, name, *(_bytes(word) for part in some for word in flat(part)))

    return write


def _write_stream(pipe: Any, name: bytes, value: Any) -> None:
    for entry, words in value["entries"]:
        pipe.execute_command("XADD", name, entry, *map(_bytes, words))
    for group, at in value["groups"].items():
        pipe.execute_command("XGROUP", "CREATE", name, _bytes(group), at)


_WRITERS: dict[str, Callable[[Any, bytes, Any], None]] = {
    "string": lambda pipe, name, value: pipe.set(name, _bytes(value)),
    "list": _in_parts("RPUSH", lambda part: [part]),
    "set": _in_parts("SADD", lambda part: [part]),
    "zset": _in_parts("ZADD", lambda part: [part[1], part[0]]),
    "hash": _in_parts("HSET", lambda part: list(part)),
    "stream": _write_stream,
}


def _text(found: bytes | str) -> str:
    return found if isinstance(found, str) else found.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")

"""Lua scripts, run on the broker: what a script checks and what it writes is one step.

The scripts of ``x.py`` lie beside it in ``x.lua``, each a function without parameters. The comment above it declares
its keys and arguments, which makes it a script::

    -- Put a task into another state.
    -- KEYS: record, history
    -- ARGV: state, *fields
    local function move()
      redis.call('HSET', KEY.record, 'state', ARG.state, unpack(ARG.fields))
    end

In Lua, ``KEY`` and ``ARG`` hold the values by name, as strings; a starred name holds a list. In Python they are keyword
arguments: a starred one takes a list, or a mapping that becomes a list of names and values in turn; ``None`` arrives as
``''``, a truth value as ``'1'`` or ``'0'``. No name may be both a key and an argument.

The comment at the head of a file may include another Lua file, of its own folder or of this one, by ``WITH: clock``,
and take constants from the Python module by ``FROM PYTHON: LIMIT, STATES``. ``unpack`` works in every version of Lua.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import redis
from redis.client import Pipeline
from redis.exceptions import NoScriptError

SHARED = Path(__file__).parent

_SCRIPT = re.compile(r"((?:^--.*\n)+)local function (\w+)\(\)", re.MULTILINE)
_HEAD = re.compile(r"(?:--.*\n)*")
_NAMES = r": ((?:\*?\w+, )*\*?\w+)"
_COMMENT = re.compile(r"^--.*\n|[ \t]+--.*$", re.MULTILINE)
_PART = re.compile(r"^local (?:function )?(\w+(?:, \w+)*)(?:.*\n)(?:(?!local ).*\n?)*", re.MULTILINE)
_WORD = re.compile(r"\w+")
_SLICE = (
    "local function _slice(from, first, count)\n"
    "  if count < 1000 then return {unpack(from, first, first + count - 1)} end\n"  # quick, but bounded by the stack
    "  local part = {}\n"
    "  for i = 1, count do part[i] = from[first + i - 1] end\n"
    "  return part\n"
    "end\n"
)

_loaded: WeakKeyDictionary[redis.ConnectionPool, set[str]] = WeakKeyDictionary()
"""The scripts that were loaded through each pool: a broker logs each call of a script that it does not have."""


class Scripts(Mapping[str, "Script"]):
    """The scripts of one Lua file, by the names of their functions."""

    def __init__(self, file: str | Path, **constants: Any) -> None:
        """``file`` is the Python module beside the scripts; the constants are those that their head comment names."""
        self._file = Path(file).with_suffix(".lua")
        self._constants = constants

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scripts)

    def __len__(self) -> int:
        return len(self._scripts)

    @cached_property
    def _scripts(self) -> dict[str, Script]:
        text = self._file.read_text()
        head = _HEAD.match(text)
        comment = _words(head[0] if head else "")
        if set(_names(comment, "FROM PYTHON")) != self._constants.keys():
            raise ValueError(f"{self._file} does not name the constants it gets: {sorted(self._constants)}")
        constants = "".join(f"local {name} = {_literal(value)}\n" for name, value in self._constants.items())
        included = "".join(self._included(name) for name in _names(comment, "WITH"))
        found = [(name, _words(about)) for about, name in _SCRIPT.findall(text)]
        return {
            name: Script(name, _names(about, "KEYS"), _names(about, "ARGV"), _needed(name, constants + included + text))
            for name, about in found
            if _names(about, "KEYS")
        }

    def _included(self, name: str) -> str:
        beside = self._file.with_name(f"{name}.lua")
        return (beside if beside.exists() else SHARED / f"{name}.lua").read_text()


class Script:
    """One script; calling it runs it."""

    def __init__(self, name: str, keys: Sequence[str], args: Sequence[str], text: str) -> None:
        self.name = name
        self._keys = keys
        self._args = args
        self._names = {each.removeprefix("*") for each in (*keys, *args)}
        if len(self._names) != len(keys) + len(args):
            raise ValueError(f"the script {name} has a name twice")
        slicing = _SLICE if any(name[0] == "*" for name in (*keys, *args)) else ""
        prelude = f"local unpack = table.unpack or unpack\n{slicing}{_named(keys, args)}"
        self.script = f"{prelude}{text}\nreturn {name}()\n"
        """The text, under the name by which redis-py's pipelines know it."""
        self.sha = hashlib.sha1(self.script.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, /, **values: Any) -> Any:
        """Run it through this client, or add it to this pipeline."""
        words = self.words(**values)
        if isinstance(client, Pipeline):
            client.scripts.add(self)  # type: ignore[arg-type]  # redis-py loads it first if it is missing
            return client.evalsha(*words)
        loaded = _loaded.setdefault(client.connection_pool, set())
        if self.sha not in loaded:
            client.script_load(self.script)
            loaded.add(self.sha)
        try:
            return client.evalsha(*words)
        except NoScriptError:  # the broker was restarted meanwhile
            client.script_load(self.script)
            return client.evalsha(*words)

    def words(self, **values: Any) -> tuple[Any, ...]:
        """The arguments of ``EVALSHA``; :class:`TypeError` if a name is missing or unknown."""
        if values.keys() != self._names:
            wrong = ", ".join(sorted(values.keys() ^ self._names))
            raise TypeError(f"the script {self.name} is called with missing or unknown names: {wrong}")
        lists = {name: _flat(values[name[1:]]) for name in (*self._keys, *self._args) if name[0] == "*"}

        def spread(names: Sequence[str]) -> list[Any]:
            return [part for name in names for part in (lists[name] if name in lists else [_plain(values[name])])]

        keys = spread(self._keys)
        return (self.sha, len(keys), *keys, *map(len, lists.values()), *spread(self._args))

    def keys_in(self, **values: Any) -> list[str]:
        """The names of the keys that the script gets."""
        _, count, *words = self.words(**values)
        return [str(key) for key in words[:count]]


def _words(comment: str) -> str:
    return " ".join(line.removeprefix("--").strip() for line in comment.splitlines())


def _names(comment: str, what: str) -> list[str]:
    found = re.search(what + _NAMES, comment)
    return found[1].split(", ") if found else []


def _needed(name: str, text: str) -> str:
    """The functions and values of a file that this function uses, directly or not.

    The broker makes each of them anew at every call, and reads the clock if that is among them.
    """
    parts = [(match[1].split(", "), match[0]) for match in _PART.finditer(_COMMENT.sub("", text))]
    wanted = {name}
    for names, part in reversed(parts):  # Lua knows only what stands above
        if wanted.intersection(names):
            wanted.update(_WORD.findall(part))
    return "".join(part for names, part in parts if wanted.intersection(names))


def _named(keys: Sequence[str], args: Sequence[str]) -> str:
    """The Lua code that names the values; the lengths of the lists come before all other arguments."""
    lists = [name for name in (*keys, *args) if name[0] == "*"]

    def table(of: str, names: Sequence[str], place: int) -> str:
        after, fields = "", []
        for name in names:
            if name in lists:
                length = f"tonumber(ARGV[{lists.index(name) + 1}])"
                fields.append(f"{name[1:]} = _slice({of}, {place}{after}, {length})")
                after += f" + {length}"
            else:
                fields.append(f"{name} = {of}[{place}{after}]")
                place += 1
        return "{" + ", ".join(fields) + "}"

    return f"local KEY = {table('KEYS', keys, 1)}\nlocal ARG = {table('ARGV', args, len(lists) + 1)}\n"


def _flat(value: Any) -> list[Any]:
    parts = itertools.chain.from_iterable(value.items()) if isinstance(value, Mapping) else value
    return [_plain(part) for part in parts]


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return int(value) if isinstance(value, bool) else value


def _literal(value: Any) -> str:
    """A constant as Lua writes it; a set is a table whose members are true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"[{_literal(key)}] = {_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(f"[{_literal(one)}] = true" for one in sorted(value)) + "}"
    assert isinstance(value, Collection)
    return "{" + ", ".join(map(_literal, value)) + "}"

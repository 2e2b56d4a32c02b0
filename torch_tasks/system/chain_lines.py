"""The lines of a chained log as they lie in its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

HASH, END = b',"hash":"', b'"}'
PRUNED = "log.pruned"
"""The entry after which the files that it names are deleted, as they are older than they have to be."""


class Head(NamedTuple):
    """The last entry of a log: its number, and the hash that stands for it and for all before it."""

    number: int
    hash: str


class Line(NamedTuple):
    """A line as it was found; number and hash are what it says itself."""

    file: Path
    place: int
    payload: bytes
    number: int | None
    hash: str
    value: dict[str, Any]


def hash_of(before: str, payload: bytes) -> str:
    return sha256(before.encode() + b"\n" + payload).hexdigest()


def lines_of(file: Path) -> Iterator[Line]:
    """The lines of a file. One that its writer did not finish, at the very end, is none."""
    whole, newline, _ = file.read_bytes().rpartition(b"\n")
    for place, text in enumerate(whole.split(b"\n") if newline else (), 1):
        payload, mark, rest = text.rpartition(HASH)
        try:
            if not mark or not rest.endswith(END):
                raise ValueError
            found = json.loads(payload + b"}")
            yield Line(file, place, payload, int(found["n"]), rest[: -len(END)].decode(), dict(found["entry"]))
        except (ValueError, KeyError, TypeError):
            yield Line(file, place, payload, None, "", {})

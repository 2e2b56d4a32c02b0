"""What lay on the broker and could not be read: it is among the dead letters, under a name of its own, and why."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import redis
from pydantic import Field

from torch_tasks import keys
from torch_tasks.errors import Unreadable
from torch_tasks.model.fields import KeptText, Model
from torch_tasks.model.reader import read_model, shortened, unreadable_if_wrong
from torch_tasks.settings import settings

log = logging.getLogger(__name__)


class RefusedLetter(Model):
    """Why a dead letter is none that Torch wrote."""

    place: str
    """The list, hash or stream in which it lay."""
    field: str = ""
    """Which field of the hash it is; it stays there until the dead letter is dropped, as its owner may mend it."""
    why: KeptText
    bytes: int = 0
    """Of all that lay there; a field's copy may be shorter."""
    at: float = Field(default_factory=lambda: datetime.now(UTC).timestamp(), ge=0, lt=1e11)

    @property
    def kept_bytes(self) -> int:
        """About how many bytes the dead letter has."""
        return min(self.bytes, _COPIED) if self.field else self.bytes


def refused_name(tag: str) -> str:
    """The name of the dead letter of this delivery, which no task has."""
    return f"refused-{tag.removeprefix('parked:')[:16]}"


_COPIED = 64 << 10
"""How much of a field a dead letter holds; the field itself stays where it is."""
_Value = TypeVar("_Value")


class RefusedLetters:
    """The refusals of one broker; the client must decode responses.

    There are no more than ``refused_limit`` and ``refused_bytes`` say: :meth:`prune` drops the oldest.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def get(self, name: str) -> RefusedLetter | None:
        text = self._client.hget(keys.REFUSALS, name)
        return None if text is None else _read(str(text))

    def reading(self, place: str, field: str, text: str, read: Callable[[str], _Value]) -> _Value | None:
        """What ``read`` makes of a field of a hash; None if it cannot: then it is among the dead letters."""
        try:
            with unreadable_if_wrong():
                return read(text)
        except Unreadable as error:
            self.note(place, field, text, str(error))
            return None

    def readable(self, place: str, fields: Mapping[str, str], read: Callable[[str, str], _Value]) -> dict[str, _Value]:
        """The fields of a hash that can be read, by their names; ``read`` gets name and text."""
        found = {name: self.reading(place, name, text, partial(read, name)) for name, text in fields.items()}
        return {name: value for name, value in found.items() if value is not None}

    def set_aside(self, place: str, fields: Mapping[str, str], why: str) -> None:
        """Move a whole hash, the record of one thing, to the dead letters."""
        text = json.dumps(fields)
        letter = RefusedLetter(place=place, why=why, bytes=len(text))
        name = _name_of(place, "", text)
        log.error("%s is refused as %s: %s", place, name, why)
        with self._client.pipeline() as pipe:
            pipe.hset(keys.DEAD_LETTERS, name, text)
            pipe.hset(keys.REFUSALS, name, letter.model_dump_json())
            pipe.delete(place)
            pipe.execute()

    def drop(self, name: str) -> None:
        """Delete what a dead letter of a field was copied from."""
        letter = self.get(name)
        if letter and letter.field:
            self._client.hdel(letter.place, letter.field)

    def note(self, place: str, field: str, text: str, why: str) -> bool:
        """Name what cannot be read and keep a copy of it among the dead letters, once; it stays where it is.

        Returns whether it is new.

        If there is no room for the copy, only the place remembers it: it is read, and refused, again.
        """
        name = _name_of(place, field, text)
        letter = RefusedLetter(place=place, field=field, why=why, bytes=len(text))
        if self._client.hlen(keys.REFUSALS) >= settings().refused_limit:
            return False
        with self._client.pipeline() as pipe:
            pipe.hsetnx(keys.DEAD_LETTERS, name, text[:_COPIED])
            pipe.hsetnx(keys.REFUSALS, name, letter.model_dump_json())
            _, is_new = pipe.execute()
        if is_new:
            what = repr(shortened(field)) if field else "something"
            log.error("%s in %s is refused as %s: %s", what, place, name, why)
        return bool(is_new)

    def prune(self) -> int:
        """Drop the oldest that are too many or too large together, and count them; fields' copies come last.

        A copy would be made again: its field is still there.
        """
        letters = sorted(self.all().items(), key=lambda pair: (bool(pair[1].field), pair[1].at))
        count, size = len(letters), sum(letter.kept_bytes for _, letter in letters)
        most, room = settings().refused_limit, settings().refused_bytes
        gone = []
        for name, letter in letters:
            if count <= most and size <= room:
                break
            gone.append(name)
            count, size = count - 1, size - letter.kept_bytes
        if gone:
            with self._client.pipeline() as pipe:
                pipe.hdel(keys.DEAD_LETTERS, *gone)
                pipe.hdel(keys.REFUSALS, *gone)
                pipe.incrby(keys.REFUSALS_DROPPED, len(gone))
                *_, in_all = pipe.execute()
            log.warning(
                "%d dead letters that could not be read were dropped, the oldest first, %s in all: more than "
                "TORCH_REFUSED_LIMIT (%d) or TORCH_REFUSED_BYTES (%d) are not kept",
                len(gone), in_all, most, room,
            )  # fmt: skip
        return len(gone)

    def dropped(self) -> int:
        """How many :meth:`prune` has dropped so far."""
        return int(self._client.get(keys.REFUSALS_DROPPED) or 0)

    def all(self) -> dict[str, RefusedLetter]:
        """All of them by the names of their dead letters, the latest first."""
        found = {str(name): _read(str(text)) for name, text in self._client.hgetall(keys.REFUSALS).items()}
        return dict(sorted(found.items(), key=lambda pair: -pair[1].at))


def _name_of(place: str, field: str, text: str) -> str:
    digest = hashlib.blake2s(f"{place}\n{field}\n{text}".encode(errors="replace"), digest_size=8)
    return f"refused-{digest.hexdigest()}"


def _read(text: str) -> RefusedLetter:
    try:
        return read_model(RefusedLetter, text)
    except Unreadable as error:
        return RefusedLetter(place=keys.REFUSALS, why=str(error), bytes=len(text), at=0)

"""What lay on the broker and could not be read: it is among the dead letters, under a name of its own, and why."""

from __future__ import annotations

from datetime import UTC, datetime

import redis
from pydantic import Field

from torch_tasks import keys
from torch_tasks.errors import Unreadable
from torch_tasks.model.fields import Model
from torch_tasks.model.reader import read_model


class RefusedLetter(Model):
    """Why a dead letter is none that Torch wrote."""

    place: str
    """The list, hash or stream in which it lay."""
    why: str
    bytes: int = 0
    at: float = Field(default_factory=lambda: datetime.now(UTC).timestamp(), ge=0, lt=1e11)


def refused_name(tag: str) -> str:
    """The name of the dead letter of this delivery, which no task has."""
    return f"refused-{tag.removeprefix('parked:')[:16]}"


class RefusedLetters:
    """The refusals of one broker; the client must decode responses."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def get(self, name: str) -> RefusedLetter | None:
        text = self._client.hget(keys.REFUSALS, name)
        return None if text is None else _read(str(text))

    def all(self) -> dict[str, RefusedLetter]:
        """All of them by the names of their dead letters, the latest first."""
        found = {str(name): _read(str(text)) for name, text in self._client.hgetall(keys.REFUSALS).items()}
        return dict(sorted(found.items(), key=lambda pair: -pair[1].at))


def _read(text: str) -> RefusedLetter:
    try:
        return read_model(RefusedLetter, text)
    except Unreadable as error:
        return RefusedLetter(place=keys.REFUSALS, why=str(error), bytes=len(text), at=0)

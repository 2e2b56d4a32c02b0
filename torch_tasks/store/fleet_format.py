"""Which format a broker holds: noted there by the first release that came, and read by all before they do more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version

import redis
from pydantic import ValidationError

from torch_tasks import keys
from torch_tasks.errors import Unreadable
from torch_tasks.model.fleet_format import FIRST, FORMAT, FleetFormat
from torch_tasks.model.reader import number, read_object

_LONGEST = 256
_AS_FIRST = FleetFormat(format=FIRST, release="0.1.0")


def own_format() -> FleetFormat:
    """That of this process."""
    return FleetFormat(format=FORMAT, release=version("torch-tasks"))


class FormatNote:
    """What a broker says of its format."""

    def __init__(self, client: redis.Redis, place: str) -> None:
        self._client = client
        self._place = place

    def require_own(self) -> None:
        """Raise :class:`OtherFormat` if the broker says another one; one that says none may hold any."""
        if noted := _read(self._text()):
            noted.require(own_format(), self._place)

    def agree(self) -> None:
        """Note this release's format on a broker that has none, or raise :class:`OtherFormat`.

        One that has forgotten it is told by the entries of the nodes, which say theirs anew with each heartbeat.
        """
        text = self._text()
        if noted := _read(text):
            return noted.require(own_format(), self._place)
        for found in self._found():
            found.require(own_format(), self._place)
        # What cannot be read is replaced; of two that find nothing, the first one's counts.
        self._client.set(keys.FLEET_FORMAT, own_format().model_dump_json(), nx=not text)
        return self.require_own()

    def _text(self) -> str:
        return str(self._client.getrange(keys.FLEET_FORMAT, 0, _LONGEST))

    def _found(self) -> Iterator[FleetFormat]:
        """The formats of what lies on a broker that has no note of one."""
        if self._client.exists(keys.AGENT_REGISTRY) and not self._client.exists(keys.AGENT_TRAITS):
            yield _AS_FIRST
        for entry in map(str, self._client.hvals(keys.NODE_REGISTRY)):
            with suppress(Unreadable):
                fields = read_object(entry)
                if noted := number(fields.get("format")):
                    yield FleetFormat(format=noted, release=str(fields.get("version")))


def _read(text: str) -> FleetFormat | None:
    try:
        return FleetFormat.model_validate_json(text) if text else None
    except ValidationError:
        return None

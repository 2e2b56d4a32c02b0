"""The notices: every statement on the stream of what changes, which any process reads from any place on."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis

from torch_tasks import keys

AT_ONCE = 200
_KEPT = 20_000
"""As in ``notices.lua``."""
NoticeNumber = tuple[int, int]
"""The number of an entry of the stream; (0, 0) before the first one."""


class Notice(NamedTuple):
    """That a record has another state, or that a message was refused."""

    number: NoticeNumber
    record: str = ""
    state: str = ""
    audit: str = ""


class Notices:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def last(self) -> NoticeNumber:
        """The number of the latest notice."""
        newest: Any = self._client.xrevrange(keys.NOTICES, count=1)
        return _number(newest[0][0]) if newest else (0, 0)

    def await_after(self, number: NoticeNumber, wait_ms: int) -> list[Notice]:
        """The next notices; waits so long for the first of them."""
        answer: Any = self._client.xread({keys.NOTICES: _text(number)}, count=AT_ONCE, block=wait_ms)
        return [_notice(*entry) for entry in answer[0][1]] if answer else []

    def between(self, number: NoticeNumber, last: NoticeNumber) -> list[Notice]:
        """The next notices up to the ``last``, not more than :data:`AT_ONCE`."""
        found: Any = self._client.xrange(keys.NOTICES, f"({_text(number)}", _text(last), count=AT_ONCE)
        return [_notice(*entry) for entry in found]

    def keeps(self, number: NoticeNumber) -> bool:
        """Whether the notice with this number, and so every later one, is still kept."""
        text = _text(number)
        return number == (0, 0) or bool(self._client.xrange(keys.NOTICES, text, text))

    def note_audit(self, entry: str) -> None:
        self._client.xadd(keys.NOTICES, {"audit": entry}, maxlen=_KEPT, approximate=True)


def _number(text: Any) -> NoticeNumber:
    milliseconds, _, count = str(text).partition("-")
    return int(milliseconds), int(count)


def _text(number: NoticeNumber) -> str:
    return f"{number[0]}-{number[1]}"


def _notice(number: Any, fields: Any) -> Notice:
    known = {str(name): str(value) for name, value in (fields or {}).items()}
    return Notice(_number(number), known.get("record", ""), known.get("state", ""), known.get("audit", ""))

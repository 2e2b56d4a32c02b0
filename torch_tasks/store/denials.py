"""What callers were refused: the latest, and how often each was."""

from __future__ import annotations

from contextlib import suppress

import redis

from torch_tasks import keys
from torch_tasks.errors import Unreadable
from torch_tasks.model.denial import Denial
from torch_tasks.model.reader import read_model

KEPT, COUNTED = 1_000, 1_000
"""How many are kept, the latest; and how many pairs of a caller and an operation are counted, others together."""
OTHERS = "others"
_WORDS_KEPT = 500


class Denials:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def note(self, denial: Denial) -> None:
        short = denial.model_copy(update={"why": denial.why[:_WORDS_KEPT], "operation": denial.operation[:_WORDS_KEPT]})
        field = f"{short.by.key} {short.operation}"
        if not self._client.hexists(keys.DENIALS_COUNTED, field):
            field = field if int(self._client.hlen(keys.DENIALS_COUNTED)) < COUNTED else OTHERS
        with self._client.pipeline() as pipe:
            pipe.hincrby(keys.DENIALS_COUNTED, field, 1)
            pipe.xadd(keys.DENIALS, {"denial": short.model_dump_json()}, maxlen=KEPT, approximate=True)
            pipe.execute()

    def latest(self, limit: int) -> list[Denial]:
        """The latest first."""
        found: list[Denial] = []
        for _, fields in self._client.xrevrange(keys.DENIALS, count=limit) or ():
            with suppress(Unreadable):
                found.append(read_model(Denial, str((fields or {}).get("denial", ""))))
        return found

    def counts(self) -> dict[str, int]:
        """How often, by who and what: ``"agent:dev-1 task.answer": 3``."""
        counted = self._client.hgetall(keys.DENIALS_COUNTED)
        return {str(what): int(number) for what, number in sorted(counted.items()) if str(number).isdecimal()}

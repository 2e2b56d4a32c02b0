"""Asks the broker for a message, reads its answer, and decides when this process asks for none."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.connection import is_wrong_type, wrong_type
from torch_tasks.broker.refused import refused_name
from torch_tasks.broker.scripts import Scripts
from torch_tasks.transport.deliveries import list_of, queue_of

log = logging.getLogger(__name__)

CLAIM = Scripts(__file__)["claim"]
TURNS_BEFORE_LOW = 9
"""After so many messages in a row have overtaken one of the lowest priority, one of the lowest is taken."""


class ClaimedMessage(NamedTuple):
    tag: str
    message: str
    queue: str
    leased: bool
    #: Whether it overtook one of the lowest priority.
    passed_by: bool
    #: It was too long to be taken, and is among the dead letters.
    refused: bool


@dataclass(frozen=True)
class ClaimRequest:
    tag: str
    lists: Sequence[str]
    #: One character for each list: see ``claiming.lua``.
    kinds: str
    #: The arguments of :data:`CLAIM`.
    values: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        queues: Sequence[str],
        steps: Sequence[int],
        *,
        server: str,
        lease_seconds: float,
        limit_bytes: int,
        unleased: Container[str] = (),
        lowest_first: bool = False,
    ) -> ClaimRequest:
        """A request for the first message of these queues: all of them by the first step, then by the next."""
        *above, lowest = steps
        places = [(queue, step) for step in ([lowest, *above] if lowest_first else steps) for queue in queues]
        kinds = "".join("0" if queue in unleased else "2" if step == lowest else "1" for queue, step in places)
        lists = [list_of(queue, step) for queue, step in places]
        bells = [keys.bell(queue) for queue in queues]
        tag = uuid.uuid4().hex
        values = {
            "leases": keys.LEASES,
            "deliveries": keys.DELIVERIES,
            "dead_letters": keys.DEAD_LETTERS,
            "refusals": keys.REFUSALS,
            "broker": keys.BROKER_STATE,
            "lists_and_bells": [*lists, *bells],
            "server": server,
            "lease_ms": int(lease_seconds * 1000),
            "limit_bytes": limit_bytes,
            "tag": tag,
            "dead_letter": refused_name(tag),
            "kinds": kinds,
        }
        return cls(tag, lists, kinds, values)

    def taken(self, answer: Sequence[Any]) -> ClaimedMessage | None:
        """The message in the broker's answer, if there is one."""
        if len(answer) < 3:
            return None
        number, message, passed_by, *refused = answer
        name = self.lists[number - 1]
        text, leased = message.decode(errors="replace"), self.kinds[number - 1] != "0"
        if refused:
            log.error("a message in %s is refused as %s: %s", queue_of(name), refused_name(self.tag), text)
        return ClaimedMessage(f"{self.tag}:{name}", text, queue_of(name), leased, bool(passed_by), bool(refused))


def is_refused(answer: Sequence[Any]) -> bool:
    """Whether the broker refused the claim because its gate is closed."""
    return len(answer) == 1


class WrongTypeLog:
    """Names, once, the key for which the broker refuses to give this channel a message."""

    def __init__(self) -> None:
        self._said = ""

    def note(self, error: redis.ResponseError, pool: redis.ConnectionPool, names: Iterable[str]) -> None:
        """Log which of these keys it is; any other error is raised."""
        if not is_wrong_type(error):
            raise error
        words = str(wrong_type(pool, names))
        if words != self._said:
            log.error("this worker cannot take messages: %s", words)
        self._said = words


class IntakePause:
    """While it lasts, no channel of the app takes a message in this process; the process keeps what it holds."""

    def __init__(self) -> None:
        self._until = 0.0
        self._reasons: list[Callable[[], bool]] = []

    def pause_for(self, seconds: float) -> None:
        """Pause from now on for so long; this replaces the time that was set before."""
        self._until = time.monotonic() + seconds

    def pause_while(self, reason: Callable[[], bool]) -> None:
        """Pause also whenever this is true; it is asked before each message, and several times a second meanwhile."""
        self._reasons.append(reason)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    @property
    def is_on(self) -> bool:
        return self.seconds_left > 0 or any(reason() for reason in self._reasons)

"""Asking the broker for a message, what it answers, and when this process asks for none."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch_tasks import keys
from torch_tasks.broker.scripts import Scripts
from torch_tasks.transport.deliveries import list_of, queue_of

CLAIM = Scripts(__file__)["claim"]
TURNS_BEFORE_LOW = 9
"""After so many messages in a row that overtook one of the lowest priority, one of the lowest is taken."""


class ClaimedMessage(NamedTuple):
    """A message that a claim brought."""

    tag: str
    message: str
    queue: str
    leased: bool
    #: There was one of the lowest priority, and it has to wait.
    passed_by: bool


@dataclass(frozen=True)
class ClaimRequest:
    """One question for a message."""

    tag: str
    lists: Sequence[str]
    #: One character for each list: see ``claiming.lua``.
    kinds: str
    #: What :data:`CLAIM` is called with.
    values: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        queues: Sequence[str],
        steps: Sequence[int],
        *,
        server: str,
        lease_seconds: float,
        unleased: Container[str] = (),
        lowest_first: bool = False,
    ) -> ClaimRequest:
        """Ask for the first message of these queues: all of them by the first step, then by the next."""
        *above, lowest = steps
        places = [(queue, step) for step in ([lowest, *above] if lowest_first else steps) for queue in queues]
        kinds = "".join("0" if queue in unleased else "2" if step == lowest else "1" for queue, step in places)
        lists = [list_of(queue, step) for queue, step in places]
        bells = [keys.bell(queue) for queue in queues]
        tag = uuid.uuid4().hex
        values = {
            "leases": keys.LEASES,
            "deliveries": keys.DELIVERIES,
            "broker": keys.BROKER_STATE,
            "lists_and_bells": [*lists, *bells],
            "server": server,
            "lease_ms": int(lease_seconds * 1000),
            "tag": tag,
            "kinds": kinds,
        }
        return cls(tag, lists, kinds, values)

    def taken(self, answer: Sequence[Any]) -> ClaimedMessage | None:
        """What the answer brings, if anything."""
        if len(answer) < 3:
            return None
        number, message, passed_by = answer
        name = self.lists[number - 1]
        text = message.decode(errors="replace")
        return ClaimedMessage(
            f"{self.tag}:{name}", text, queue_of(name), self.kinds[number - 1] != "0", bool(passed_by)
        )


def is_refused(answer: Sequence[Any]) -> bool:
    """The gate is closed."""
    return len(answer) == 1


class IntakePause:
    """While it lasts, no channel of the app takes a message in this process; what is held is kept."""

    def __init__(self) -> None:
        self._until = 0.0
        self._reasons: list[Callable[[], bool]] = []

    def last(self, seconds: float) -> None:
        """From now on, for so long; what was said before does not count any more."""
        self._until = time.monotonic() + seconds

    def while_so(self, reason: Callable[[], bool]) -> None:
        """Also whenever this is so; it is asked before each message, and several times a second meanwhile."""
        self._reasons.append(reason)

    @property
    def left(self) -> float:
        """Seconds until the time that was set is over."""
        return max(0.0, self._until - time.monotonic())

    @property
    def on(self) -> bool:
        """No message is taken now."""
        return self.left > 0 or any(reason() for reason in self._reasons)

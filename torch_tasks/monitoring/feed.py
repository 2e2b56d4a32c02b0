"""The latest events of the fleet, numbered, for callers that ask for the next ones again and again."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable

from torch_tasks.fleet import Fleet, fleet
from torch_tasks.model.fields import Model
from torch_tasks.monitoring.flow import Flow, FlowEvent
from torch_tasks.system.loops import Loop

KEPT = 10_000
"""How many events are kept for callers that are slow to ask."""
UNWATCHED_SECONDS = 90.0
"""After so long without a caller the feed ends; the next caller begins another one."""
MOST_AT_ONCE = 500


class EventPage(Model):
    """The next events, and where to go on."""

    events: tuple[FlowEvent, ...] = ()
    place: str
    """What comes after this is asked for with it."""
    missed: bool = False
    """Some events before these are not kept any more, or were kept by a process that has ended."""


class Feed:
    """The events of one fleet, as long as somebody asks for them."""

    def __init__(self, of: Fleet) -> None:
        self.of = of
        self._name = uuid.uuid4().hex[:8]
        self._kept: deque[FlowEvent] = deque(maxlen=KEPT)
        self._count = 0
        self._new = threading.Condition()
        self._asked_at = time.monotonic()
        self.is_over = False
        self._flow = Flow(of)
        Loop("feed", self._collect, until=lambda: self.is_over).start()

    def now(self) -> EventPage:
        """Where the events begin that are still to come."""
        return EventPage(place=self._place(self._count))

    def after(self, place: str, seconds: float, wanted: Callable[[FlowEvent], bool]) -> EventPage:
        """The wanted events after this place; waits so long for the first of them."""
        deadline = time.monotonic() + seconds
        name, _, number = place.partition("-")
        known = name == self._name and number.isdecimal()
        with self._new:
            seen = int(number) if known else self._count
            missed = not known or seen < self._count - len(self._kept)
            while True:
                self._asked_at = time.monotonic()
                new, seen = self._since(seen)
                events = tuple(filter(wanted, new))
                left = deadline - time.monotonic()
                if events or missed or (left <= 0 and seen == self._count):
                    return EventPage(events=events, place=self._place(seen), missed=missed)
                if seen == self._count:
                    self._new.wait(left)

    def _since(self, seen: int) -> tuple[list[FlowEvent], int]:
        """At most so many events after a number, and the number of the last of them."""
        oldest = self._count - len(self._kept)
        first = max(seen, oldest) - oldest
        new = [self._kept[one] for one in range(first, min(first + MOST_AT_ONCE, len(self._kept)))]
        return new, oldest + first + len(new)

    def _place(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _collect(self) -> None:
        for event in self._flow.events():
            if event is not None:
                with self._new:
                    self._kept.append(event)
                    self._count += 1
                    self._new.notify_all()
            if time.monotonic() - self._asked_at > UNWATCHED_SECONDS:  # however much happens
                self.is_over = True
                self._flow.close()
                return


_beginning = threading.Lock()
_feeds: list[Feed] = []


def feed() -> Feed:
    """The feed of this process's fleet, begun now if there is none.

    Raises :class:`BrokerUnreachable` if one is to begin and the broker is away.
    """
    with _beginning:
        if not _feeds or _feeds[-1].is_over or _feeds[-1].of is not fleet():
            _feeds[:] = [Feed(fleet())]
        return _feeds[-1]

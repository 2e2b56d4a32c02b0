"""The latest events of the fleet, for callers that ask for the next ones again and again.

A caller goes on where it was, also when this process has begun later than that: the broker keeps what happened.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import islice

from torch_tasks.fleet import Fleet, fleet
from torch_tasks.model.fields import Model
from torch_tasks.monitoring.flow import Flow, FlowEvent, FlowPlace, PlacedEvent

KEPT = 10_000
"""How many events are kept here for callers that are slow to ask; the broker keeps more."""
UNWATCHED_SECONDS = 90.0
"""After so long without a caller the feed ends; the next caller begins another one."""
MOST_AT_ONCE = 500


class EventPage(Model):
    """The next events, and where to go on."""

    events: tuple[FlowEvent, ...] = ()
    place: str
    """What comes after this is asked for with it."""
    missed: bool = False
    """Some events before these are not kept any more."""


class Feed:
    """The events of one fleet, as long as somebody asks for them."""

    def __init__(self, of: Fleet) -> None:
        self.of = of
        self._kept: deque[PlacedEvent] = deque()
        self._new = threading.Condition()
        self._asked_at = time.monotonic()
        self._flow = Flow(of, self._keep, lambda: self.is_over)
        self._begin = self._flow.begin
        """All that is kept comes after this place."""

    @property
    def is_over(self) -> bool:
        """Whether no caller has asked for long, however much happens."""
        return time.monotonic() - self._asked_at > UNWATCHED_SECONDS

    @property
    def trouble(self) -> str:
        """Why events cannot be read now; empty if they are read."""
        return self._flow.trouble

    def now(self) -> EventPage:
        """Where the events begin that are still to come."""
        return EventPage(place=str(self._flow.place))

    def after(self, place: str, seconds: float, wanted: Callable[[FlowEvent], bool]) -> EventPage:
        """The wanted events after this place; waits so long for the first of them."""
        deadline = time.monotonic() + seconds
        at = self.known_place(place)
        if at is None:
            return EventPage(place=str(self._flow.place), missed=True)
        while True:
            placed, at = self.next(at, max(0.0, deadline - time.monotonic()))
            events = tuple(one.event for one in placed if wanted(one.event))
            if events or (not placed and time.monotonic() >= deadline):
                return EventPage(events=events, place=str(at))

    def latest(self, limit: int, wanted: Callable[[FlowEvent], bool]) -> list[FlowEvent]:
        """The latest of those that are kept here, newest first."""
        with self._new:
            kept = list(self._kept)
        return list(islice((one.event for one in reversed(kept) if wanted(one.event)), limit))

    def known_place(self, text: str) -> FlowPlace | None:
        """The place that was written so, if all that came after it is still kept."""
        self._asked_at = time.monotonic()
        place = FlowPlace.read(text)
        if place and place.is_before(self._begin) and not self.of.notices.keeps(place.notices[:2]):
            return None
        return place

    def next(self, place: FlowPlace, seconds: float) -> tuple[list[PlacedEvent], FlowPlace]:
        """The next events after this place, not very many at once, and the place after them; waits so long for one."""
        self._asked_at = time.monotonic()
        while place.is_before(begin := self._begin):  # what this process has not seen, or does not keep any more
            placed, place = self._flow.between(place, begin)
            if placed:
                return placed, place
        with self._new:
            if not (placed := self._since(place)) and seconds > 0:
                self._new.wait_for(lambda: self._since(place), seconds)
                placed = self._since(place)
            self._asked_at = time.monotonic()
        return placed, placed[-1].place if placed else place

    def _since(self, place: FlowPlace) -> list[PlacedEvent]:
        """At most so many kept events after a place, and the rest of those that were seen at once with the last."""
        first = bisect_left(self._kept, True, key=lambda one: place.is_before(one.place))
        placed: list[PlacedEvent] = []
        for index in range(first, len(self._kept)):
            one = self._kept[index]
            if len(placed) >= MOST_AT_ONCE and one.place != placed[-1].place:
                break
            if one.is_after(place):
                placed.append(one)
        return placed

    def _keep(self, placed: PlacedEvent) -> None:
        with self._new:
            if len(self._kept) >= KEPT:
                self._begin = self._kept.popleft().place
            self._kept.append(placed)
            self._new.notify_all()


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


def seen_lately(limit: int, wanted: Callable[[FlowEvent], bool]) -> list[FlowEvent]:
    """The latest events that this process has seen, newest first; none if it follows no fleet."""
    with _beginning:
        current = _feeds[-1] if _feeds and _feeds[-1].of is fleet() else None
    return current.latest(limit, wanted) if current else []

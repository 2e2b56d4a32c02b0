"""What happens in the fleet, as server-sent events: read from the broker once, for however many clients."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anyio import move_on_after, to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from torch_tasks.errors import InvalidRequest, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.model.near import did_you_mean
from torch_tasks.model.task import TaskState
from torch_tasks.monitoring.feed import Feed, feed
from torch_tasks.monitoring.flow import FlowEvent, FlowKind, FlowPlace, PlacedEvent
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.server.problems import problem
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

KINDS = ("tasks", "agents", "questions")
_BEHIND = 2000
"""A client that has not taken so many events is cut off; it comes back and goes on after the last one that it had."""
_QUIET_SECONDS = 15.0
"""After so long without an event, a comment shows both sides that the other one is there."""
_RETRY_MS = 1000
_MISSED = b'event: missed\ndata: {"note": "events were missed: ask anew for what you follow"}\n\n'
_NAMES = {FlowKind.TASKS: "task", FlowKind.AGENTS: "agent", FlowKind.BROKER: "broker"}


@dataclass(frozen=True)
class Published:
    """One event as every client gets it."""

    placed: PlacedEvent
    kind: str
    """The kind that a client asks for; empty if everybody gets it."""
    text: bytes


@dataclass(frozen=True)
class Wanted:
    """Which events one client has asked for."""

    kinds: frozenset[str]
    task: str | None
    agent: str | None

    def takes(self, published: Published) -> bool:
        if not published.kind:
            return True
        event = published.placed.event
        task = event.id if event.kind is FlowKind.TASKS else ""
        of_task, of_agent = self.task in (None, task), self.agent in (None, event.agent)
        return published.kind in self.kinds and of_task and of_agent


class _Listener:
    """One client's place in the stream."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.waiting: deque[Published] = deque()
        self.news = asyncio.Event()
        self.lost = False

    def give(self, published: Published) -> None:
        if not self.wanted.takes(published):
            return
        if len(self.waiting) >= _BEHIND:
            self.lost = True
        else:
            self.waiting.append(published)
        self.news.set()


class EventHub:
    """Follows the feed in one thread, and gives each event to the clients that asked for such."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()
        self._watching: dict[asyncio.Event, Callable[[FlowEvent], bool]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._feed: Feed | None = None
        self._place: FlowPlace | None = None
        self._reads = asyncio.Event()
        self.closing = False

    def open(self) -> None:
        """Begin to read; while the broker is away, it is tried again."""
        self._loop = asyncio.get_running_loop()
        Loop("events for clients", self._read, until=lambda: self.closing).start()

    def close(self) -> None:
        """End every client's stream."""
        self.closing = True
        self._reads.set()
        for listener in self._listeners:
            listener.news.set()

    @property
    def clients(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @property
    def trouble(self) -> str:
        """Why no events are read now; empty if they are."""
        return self._feed.trouble if self._feed else "the first look has not ended"

    async def stream(self, wanted: Wanted, last: str | None, holds: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        """The events from now on, or from the last one that the client had; ends when its caller is no more let in."""
        listener = _Listener(wanted)
        self._listeners.add(listener)
        try:
            while not (self._reads.is_set() or self.closing):
                await self._news(self._reads)
                yield b": the broker is away\n\n"
            if self.closing or self._feed is None or self._place is None:
                return
            known = self._place if last is None else await to_thread.run_sync(self._feed.known_place, last)
            place = known or self._place
            yield _beginning(place) + (b"" if known else _MISSED)
            while place.is_before(self._place) and not self.closing:  # what it missed
                placed, place = await to_thread.run_sync(self._feed.next, place, 0.0)
                published = await to_thread.run_sync(_published, placed)
                yield b"".join(one.text for one in published if wanted.takes(one))
                if not placed:
                    break
            while not self.closing and not listener.lost:
                if not await self._news(listener.news):
                    yield b": quiet\n\n"
                listener.news.clear()
                if not holds():
                    return
                if listener.waiting:
                    yield b"".join(one.text for one in listener.waiting if one.placed.is_after(place))
                    listener.waiting.clear()
        finally:
            self._listeners.discard(listener)

    @contextmanager
    def watching(self, concerns: Callable[[FlowEvent], bool]) -> Iterator[asyncio.Event]:
        """What is set whenever such an event happens."""
        happened = asyncio.Event()
        self._watching[happened] = concerns
        try:
            yield happened
        finally:
            del self._watching[happened]

    @staticmethod
    async def _news(event: asyncio.Event) -> bool:
        """Wait for it, but not for longer than a stream may be silent."""
        with move_on_after(_QUIET_SECONDS):
            await event.wait()
        return event.is_set()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> None:
        assert self._loop
        if self._feed is None:
            self._feed = feed()
            self._place = self._feed.known_place(self._feed.now().place)
            self._loop.call_soon_threadsafe(self._reads.set)
        assert self._place
        placed, place = self._feed.next(self._place, _QUIET_SECONDS)
        self._loop.call_soon_threadsafe(self._publish, placed, _published(placed), place)

    def _publish(self, placed: list[PlacedEvent], published: list[Published], place: FlowPlace) -> None:
        self._place = place
        for happened, concerns in self._watching.items():
            if any(concerns(one.event) for one in placed):
                happened.set()
        for one in published:
            for listener in self._listeners:
                listener.give(one)


def _beginning(place: FlowPlace) -> bytes:
    """What a client gets first: from where on it reads."""
    return f"retry: {_RETRY_MS}\nid: {place}\nevent: begin\ndata: {{}}\n\n".encode()


def _published(placed: Iterable[PlacedEvent]) -> list[Published]:
    """The events as clients get them: of several at one place only the last has its id, or some could be missed."""
    found = [(one, *each) for one in placed for each in _described(one.event)]
    nexts = [*(one.place for one, *_ in found[1:]), None][: len(found)]
    return [
        Published(one, kind, _text("" if one.place == later else str(one.place), name, values))
        for (one, kind, name, values), later in zip(found, nexts, strict=True)
    ]


def _text(number: str, name: str, values: dict[str, Any]) -> bytes:
    data = json.dumps(values, ensure_ascii=False)
    return (f"id: {number}\n" * bool(number) + f"event: {name}\ndata: {data}\n\n").encode()


def _described(event: FlowEvent) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """The events that clients get of one in the fleet: its kind, its name, its values."""
    if event.kind is FlowKind.MESSAGES:  # whose messages somebody may read is decided for each receiver
        return
    values = event.model_dump(mode="json", exclude={"kind", "sender"})
    yield "" if event.kind is FlowKind.BROKER else event.kind, _NAMES[event.kind], values
    if asked := _question_in(event):
        yield "questions", "question", {"at": values["at"], "task": event.id, "agent": event.agent, **asked}


def _question_in(event: FlowEvent) -> dict[str, Any] | None:
    """What a person is asked, if the event says that somebody waits for one."""
    if event.kind is FlowKind.TASKS and event.what == TaskState.WAITING:
        record = fleet().records.find(event.id)
        if record and record.question:
            return {"question": record.question.model_dump(mode="json")}
    if event.kind is FlowKind.AGENTS and event.what == AgentState.WAITING:
        infos = fleet().registry.get_agents([event.agent])
        return next(({"question": {"text": info.asks}} for info in infos if info.is_held_up), None)
    return None


async def events(request: Request) -> Response:
    """``GET /api/v1/events``: the stream of one client, until its token is revoked or has expired."""
    try:
        wanted = _wanted(request)
        require("event.stream", Right.LOOK, Subject())
    except TorchError as error:
        return problem(error)
    hub: EventHub = request.app.state.hub
    stream = hub.stream(wanted, request.headers.get("last-event-id"), request.state.still_let_in)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _wanted(request: Request) -> Wanted:
    unknown = request.query_params.keys() - {"kinds", "task", "agent"}
    if unknown:
        raise InvalidRequest(f"this request cannot be accepted: {sorted(unknown)[0]}: is not a field that exists")
    given = request.query_params.get("kinds", ",".join(KINDS)).split(",")
    for kind in given:
        if kind not in KINDS:
            raise InvalidRequest(f"there are no events of {kind!r}; {did_you_mean(kind, KINDS, ', '.join(KINDS))}")
    return Wanted(frozenset(given), request.query_params.get("task"), request.query_params.get("agent"))

"""What happens in the fleet, as server-sent events: read from the broker once, for however many clients."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from anyio import move_on_after
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from torch_tasks.errors import InvalidRequest, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentState
from torch_tasks.model.near import did_you_mean
from torch_tasks.model.task import TaskState
from torch_tasks.monitoring.flow import Flow, FlowEvent, FlowKind
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.server.problems import problem
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

KINDS = ("tasks", "agents", "questions")
KEPT = 2000
"""How many events are kept for clients that come back."""
_BEHIND = 2000
"""A client that has not taken so many events is cut off; it comes back and goes on after the last one that it had."""
_QUIET_SECONDS = 15.0
"""After so long without an event, a comment shows both sides that the other one is there."""
_RETRY_MS = 1000
_NAMES = {FlowKind.TASKS: "task", FlowKind.AGENTS: "agent", FlowKind.BROKER: "broker"}


@dataclass(frozen=True)
class Published:
    """One event as every client gets it."""

    number: int
    kind: str
    """The kind that a client asks for; empty if everybody gets it."""
    task: str
    agent: str
    text: bytes


@dataclass(frozen=True)
class Wanted:
    """Which events one client has asked for."""

    kinds: frozenset[str]
    task: str | None
    agent: str | None

    def takes(self, event: Published) -> bool:
        if not event.kind:
            return True
        of_task, of_agent = self.task in (None, event.task), self.agent in (None, event.agent)
        return event.kind in self.kinds and of_task and of_agent


class _Listener:
    """One client's place in the stream."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.waiting: deque[bytes] = deque()
        self.news = asyncio.Event()
        self.lost = False

    def give(self, event: Published) -> None:
        if not self.wanted.takes(event):
            return
        if len(self.waiting) >= _BEHIND:
            self.lost = True
        else:
            self.waiting.append(event.text)
        self.news.set()


class EventHub:
    """Reads the fleet's events in one thread, numbers them, and gives each to the clients that asked for such."""

    def __init__(self) -> None:
        self._stream = secrets.token_hex(4)
        """Numbers count in this process alone."""
        self._number = 0
        self._kept: deque[Published] = deque(maxlen=KEPT)
        self._listeners: set[_Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
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

    async def stream(self, wanted: Wanted, last: str | None, holds: Callable[[], bool]) -> AsyncIterator[bytes]:
        """The events from now on, or from the last one that the client had; ends when its caller is no more let in."""
        listener = _Listener(wanted)
        self._listeners.add(listener)
        try:
            while not (self._reads.is_set() or self.closing):
                await self._news(self._reads)
                yield b": the broker is away\n\n"
            yield self._beginning(listener, last)
            while not self.closing and not listener.lost:
                if not await self._news(listener.news):
                    yield b": quiet\n\n"
                listener.news.clear()
                if not holds():
                    return
                if listener.waiting:
                    yield b"".join(listener.waiting)
                    listener.waiting.clear()
        finally:
            self._listeners.discard(listener)

    @staticmethod
    async def _news(event: asyncio.Event) -> bool:
        """Wait for it, but not for longer than a stream may be silent."""
        with move_on_after(_QUIET_SECONDS):
            await event.wait()
        return event.is_set()

    def _beginning(self, listener: _Listener, last: str | None) -> bytes:
        """What a client gets first: from where it reads, and what it missed since its last event, or that it did."""
        listener.waiting.clear()
        now, missed = f"{self._stream}-{self._number}", b""
        if last is not None:
            stream, _, number = last.rpartition("-")
            first = self._kept[0].number if self._kept else self._number + 1
            if stream == self._stream and number.isdecimal() and first - 1 <= int(number) <= self._number:
                now = last
                wanted = (one for one in self._kept if one.number > int(number) and listener.wanted.takes(one))
                missed = b"".join(one.text for one in wanted)
            else:
                missed = b'event: missed\ndata: {"note": "events were missed: ask anew for what you follow"}\n\n'
        return f"retry: {_RETRY_MS}\nid: {now}\nevent: begin\ndata: {{}}\n\n".encode() + missed

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> None:
        assert self._loop
        flow = Flow(fleet())
        self._loop.call_soon_threadsafe(self._reads.set)
        for event in flow.events():
            if self.closing:
                return
            if event:
                for kind, name, values in _told(event):
                    self._loop.call_soon_threadsafe(self._publish, kind, name, values, event)

    def _publish(self, kind: str, name: str, values: dict[str, Any], event: FlowEvent) -> None:
        self._number += 1
        data = json.dumps(values, ensure_ascii=False)
        text = f"id: {self._stream}-{self._number}\nevent: {name}\ndata: {data}\n\n".encode()
        task = event.id if event.kind is FlowKind.TASKS else ""
        published = Published(self._number, kind, task, event.agent, text)
        self._kept.append(published)
        for listener in self._listeners:
            listener.give(published)


def _told(event: FlowEvent) -> Iterable[tuple[str, str, dict[str, Any]]]:
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

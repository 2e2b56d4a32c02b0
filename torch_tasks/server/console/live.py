"""``GET /live``: the one stream of a window, with the news that it follows and the terminals that it shows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from torch_tasks.errors import InvalidRequest, TorchError
from torch_tasks.operations.operation import operation_named
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.server.console.panes import PaneHub
from torch_tasks.server.events import KINDS, EventHub, Wanted
from torch_tasks.server.problems import problem

log = logging.getLogger(__name__)

MOST_PANES = 200
"""So many terminals may one window show."""


class LiveStreams:
    """A browser keeps few connections to one server, so a window has one for all that is live in it."""

    def __init__(self, hub: EventHub) -> None:
        self._hub, self._panes = hub, PaneHub()

    async def answer(self, request: Request) -> Response:
        """``kinds`` of events and ``agents`` with commas between them; ``thumb=1`` for small pictures.

        ``after`` is the id of the last event that the window had from an earlier stream.
        """
        asked = request.query_params
        try:
            require("event.stream", Right.LOOK, Subject())
            wanted = Wanted(_kinds_in(asked.get("kinds", "")), None, None)
            agents = _agents_in(asked.get("agents", ""))
        except TorchError as error:
            return problem(error)
        holds = request.state.still_let_in
        last = request.headers.get("last-event-id") or asked.get("after")
        streams = [self._hub.stream(wanted, last, holds)]
        if agents:
            streams.append(self._panes.stream(agents, holds, is_small=asked.get("thumb") == "1"))
        return StreamingResponse(
            _together(*streams), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )


async def _together(*streams: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """What they send, as it comes, until the first of them ends."""
    texts: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)

    async def pass_on(stream: AsyncGenerator[bytes, None]) -> None:
        try:
            async with aclosing(stream):
                async for text in stream:
                    await texts.put(text)
        except Exception:
            log.exception("a window's stream failed")
        await texts.put(None)

    passing = [asyncio.create_task(pass_on(stream)) for stream in streams]
    try:
        while (text := await texts.get()) is not None:
            yield text
    finally:
        for one in passing:
            one.cancel()


def _kinds_in(text: str) -> frozenset[str]:
    kinds = frozenset(filter(None, text.split(",")))
    if unknown := kinds.difference(KINDS):
        raise InvalidRequest(f"there are no events of {min(unknown)[:60]!r}, but of {', '.join(KINDS)}")
    return kinds


def _agents_in(text: str) -> frozenset[str]:
    """The agents whose terminals the caller may see, each of which is asked for."""
    agents = frozenset(filter(None, text.split(",")))
    if len(agents) > MOST_PANES:
        raise InvalidRequest(f"a window shows {MOST_PANES} terminals at most, not {len(agents)}")
    operation = operation_named("agent.screen")
    for agent in agents:
        require(operation.name, operation.right, Subject(agent=agent))
    return agents

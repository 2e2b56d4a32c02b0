"""HTTP as uvicorn speaks it, with an end to its patience: slow clients are cut off, not waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class ImpatientProtocol(H11Protocol):
    """Cuts a connection on which no request becomes whole, or whose client does not take what it is sent."""

    SLOW_SECONDS = 10.0

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._patience: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect("a request")

    def connection_lost(self, exc: Exception | None) -> None:
        for name in tuple(self._patience):
            self._have(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._have("a request")
        elif self.cycle is None or self.cycle.response_complete:  # a part of the next request's head
            self._expect("a request")

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        self._expect("room")

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        self._have("room")

    def _expect(self, what: str) -> None:
        if what not in self._patience:
            self._patience[what] = self.loop.call_later(self.SLOW_SECONDS, self.transport.abort)

    def _have(self, what: str) -> None:
        if timer := self._patience.pop(what, None):
            timer.cancel()

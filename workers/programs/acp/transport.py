"""The lines of an agent's program as messages of the protocol; what is none of them is shown, and stops nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any


class StdioTransport:
    """The standard input and output of the agent's program."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_garbage: Callable[[str], None]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_garbage = on_garbage

    async def send(self, message: dict[str, Any]) -> None:
        """Give the program a message; OSError if it has ended."""
        self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        await self._writer.drain()

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end."""
        while line := await self._line():
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict):
                return message
            if line.strip():
                self._on_garbage(line.decode(errors="replace").strip())
        return None

    async def _line(self) -> bytes:
        """The next line; nothing at the end, and of one that is too long only its beginning."""
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            return end.partial
        except asyncio.LimitOverrunError as error:
            beginning = await self._reader.readexactly(error.consumed)
            while True:
                try:
                    await self._reader.readuntil(b"\n")
                    return beginning[:1000] + b"\n"
                except asyncio.LimitOverrunError as more:
                    await self._reader.readexactly(more.consumed)
                except asyncio.IncompleteReadError:
                    return b""

    async def close(self) -> None:
        """Tell the program that nothing more comes."""
        self._writer.close()

"""The server on standard input and output, for the client that started this process."""

from __future__ import annotations

import anyio
from mcp.server.stdio import stdio_server

from torch_tasks.link import perform
from torch_tasks.mcp.server import ModelDoor


def serve(longest_wait: float | None) -> None:
    """Serve until the client closes its end; ``longest_wait`` is how many seconds it lets a tool take, if known."""
    anyio.run(_serve, longest_wait)


async def _serve(longest_wait: float | None) -> None:
    server = ModelDoor(perform, longest_wait).server
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

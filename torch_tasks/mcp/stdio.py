"""The server on standard input and output, for the client that started this process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
from mcp.server.stdio import stdio_server

from torch_tasks.link.desk import desk_of_this_pane
from torch_tasks.mcp.server import Ask, ModelDoor
from torch_tasks.mcp.tool_file import read_tool_forms


def serve(longest_wait: float | None, tools: Path | None) -> None:
    """Serve until the client closes its end.

    ``longest_wait`` is how many seconds it lets a tool take, if known; ``tools`` a file with the forms of the tools.
    """
    anyio.run(_serve, longest_wait, tools)


async def _serve(longest_wait: float | None, tools: Path | None) -> None:
    server = ModelDoor(_ask(), partial(read_tool_forms, tools), longest_wait).server
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def _ask() -> Ask:
    """At the desk of this pane, else over this process's own link."""
    if desk := desk_of_this_pane():
        return desk.call
    return _over_link


def _over_link(name: str, fields: dict[str, object], key: str | None) -> object:
    from torch_tasks.link import perform
    from torch_tasks.mcp.asking import asking  # loads what the desk does without

    return asking(perform)(name, fields, key)

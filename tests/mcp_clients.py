"""The kit's own client, as a test that is no coroutine uses it; and Torch's door on HTTP in this process."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx2
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from waiting import until

from torch_tasks.caller import Caller, acting_as
from torch_tasks.mcp.http import HttpDoor
from torch_tasks.operations.performing import perform_here

TORCH_TASKS = str(Path(sys.executable).with_name("torch-tasks"))
NEWEST, OLDER = "2026-07-28", "legacy"


class Tools:
    """A connected client."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal, client: Client) -> None:
        self.portal = portal
        self.client = client

    def names(self) -> set[str]:
        """The tools that it is offered."""
        return {tool.name for tool in self.portal.call(self.client.list_tools).tools}

    def call(self, name: str, **arguments: Any) -> str:
        """What a tool says, which must not be an error."""
        result = self.portal.call(self.client.call_tool, name, arguments)
        assert not result.is_error, result.content
        return str(result.content[0].text)

    def refusal(self, name: str, **arguments: Any) -> str:
        """The error of a tool."""
        result = self.portal.call(self.client.call_tool, name, arguments)
        assert result.is_error, result.content
        return str(result.content[0].text)


@contextmanager
def connected(server: Any, mode: str = NEWEST, headers: Mapping[str, str] | None = None) -> Iterator[Tools]:
    """A client of this server: an address, or a way to it."""
    if headers:
        own = httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False)
        server = streamable_http_client(server, http_client=own)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(server, mode=mode)) as client,
    ):
        yield Tools(portal, client)


@contextmanager
def over_stdio(mode: str = NEWEST, **environment: str) -> Iterator[Tools]:
    """A client that has started ``torch-tasks mcp``."""
    with connected(stdio_client(_command(environment)), mode) as tools:
        yield tools


def _command(environment: Mapping[str, str]) -> StdioServerParameters:
    return StdioServerParameters(command=TORCH_TASKS, args=["mcp"], env={**os.environ, **environment})


@contextmanager
def http_door() -> Iterator[str]:
    """The address of Torch's door on HTTP; the header ``x-agent`` names the agent that asks."""
    door = HttpDoor(perform_here)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        agent = dict(scope["headers"]).get(b"x-agent")
        with acting_as(Caller(agent=agent.decode() if agent else None)):
            await door.app(scope, receive, send)

    class Mounted:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await serve(scope, receive, send)

    app = Starlette(routes=[Route("/mcp", endpoint=Mounted())], lifespan=lambda _: door.running())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: server.started, "the door is open")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()

"""The server on streamable HTTP, to be mounted into an application that knows who asks.

It has no session: each request stands alone, in the newest version of the protocol and in the older ones. The
application lets in only hosts and origins of its own, and calls :attr:`HttpDoor.app` with its caller set by
:func:`torch_tasks.caller.acting_as`.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager

from torch_tasks.mcp.asking import Perform, asking
from torch_tasks.mcp.schemas import tool_forms
from torch_tasks.mcp.server import ModelDoor


class HttpDoor:
    """The ASGI application for one path, and what must run beside it."""

    def __init__(self, perform: Perform, longest_body: int = 4 << 20) -> None:
        self._manager = StreamableHTTPSessionManager(
            ModelDoor(asking(perform), tool_forms).server, stateless=True, max_request_body_size=longest_body
        )
        self.app = StreamableHTTPASGIApp(self._manager)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Serve inside this context, which an application's lifespan enters once."""
        return self._manager.run()

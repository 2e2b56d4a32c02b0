"""The port at which Prometheus reads a machine."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CONTENT_TYPE_LATEST

from torch_tasks.errors import ProcessNotStarted
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import write_private

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

log = logging.getLogger(__name__)

PATH = "/metrics"
_SLOW_SECONDS = 10.0
"""A client that takes longer for its request is cut off."""


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, with what is read at that moment."""

    daemon_threads = True

    def __init__(self, host: str, port: int, text: Callable[[], bytes]) -> None:
        """On this port, or a free one if it is in use; :class:`ProcessNotStarted` where nothing can listen."""
        self._text = text
        try:
            self._listen(host, port)
        except OSError as error:
            raise ProcessNotStarted(
                f"nothing can listen at {host} for Prometheus: {error.strerror or error}; set TORCH_METRICS_HOST to an "
                "address of this machine, or TORCH_METRICS to false"
            ) from None
        self.set_app(self._answer)

    def _listen(self, host: str, port: int) -> None:
        self.address_family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        try:
            super().__init__((host, port), _Request)
        except OSError:
            if not port:
                raise
            super().__init__((host, 0), _Request)
            log.warning("port %d is in use: metrics are at %s", port, self.url)

    def server_bind(self) -> None:
        """Bind without asking anybody for the host's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    @property
    def url(self) -> str:
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}{PATH}"

    def record(self, state: StateFolder) -> None:
        """Let a person find the address in the state folder."""
        write_private(state.metrics_address, json.dumps({"url": self.url, "pid": os.getpid()}) + "\n")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault."""
        log.debug("a request for metrics ended early", exc_info=True)

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != PATH:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [f"{PATH} has the metrics\n".encode()]
        try:
            text = self._text()
        except Exception:
            log.exception("the metrics cannot be read")
            start("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"the metrics cannot be read: see the log of the node worker\n"]
        start("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
        return [text]


class _Request(WSGIRequestHandler):
    timeout = _SLOW_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server uses
        """Nothing: Prometheus asks every few seconds."""

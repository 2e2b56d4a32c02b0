"""The pages that a process of a machine shows to programs that watch it: Prometheus, Kubernetes, a load balancer."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from torch_tasks.errors import ProcessNotStarted
from torch_tasks.machine.own_server import OwnServer
from torch_tasks.monitoring.readiness import ReadinessProbe
from torch_tasks.system.loops import Loop

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

log = logging.getLogger(__name__)

_SLOW_SECONDS = 10.0
"""A client that takes longer for its request is cut off."""
_LOOK_SECONDS = 5.0
_STATUS = {200: "200 OK", 404: "404 Not Found", 500: "500 Internal Server Error", 503: "503 Service Unavailable"}


class Page(NamedTuple):
    """What a page says."""

    text: bytes
    kind: str = "text/plain"
    status: int = 200


def health_pages(readiness: ReadinessProbe) -> dict[str, Callable[[], Page]]:
    """Whether this process lives, and whether it can do its job now."""

    def ready() -> Page:
        lacks = readiness.lacks()
        text = json.dumps({"ready": not lacks, "reasons": lacks})
        return Page(f"{text}\n".encode(), "application/json", 503 if lacks else 200)

    return {"/healthz": lambda: Page(b"ok\n"), "/readyz": ready}


class PageServer(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, with what is read at that moment."""

    daemon_threads = True

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        """On this port, or a free one if it is in use; :class:`ProcessNotStarted` where nothing can listen."""
        self._pages = pages
        try:
            self._listen(host, port)
        except OSError as error:
            raise ProcessNotStarted(
                f"nothing can listen at {host} for {', '.join(pages)}: {error.strerror or error}; set "
                "TORCH_METRICS_HOST to an address of this machine, or TORCH_METRICS to false"
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
            log.warning("port %d is in use: %s are at %s", port, ", ".join(self._pages), self.url)

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
        return f"http://{host}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault."""
        log.debug("a request ended early", exc_info=True)

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        page = self._pages.get(path, self._nothing_here)
        try:
            text, kind, status = page()
        except Exception:
            log.exception("%s cannot be read", path)
            text, kind, status = Page(b"this cannot be read now: the log of this process says why\n", status=500)
        start(_STATUS[status], [("Content-Type", kind), ("Content-Length", str(len(text)))])
        return [text]

    def _nothing_here(self) -> Page:
        return Page(f"there are {', '.join(self._pages)}\n".encode(), status=404)


class PageKeeper:
    """Shows a process's pages until its loop is stopped; if nothing can listen, the loop tries again."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]], address: Path) -> None:
        """A person finds in the file ``address`` where the pages are."""
        self._place = host, port
        self._pages = pages
        self._address = address
        self.loop = Loop("pages", self._serve)

    def _serve(self) -> None:
        with PageServer(*self._place, self._pages) as server:
            OwnServer.note(self._address, server.url)
            server.timeout = _LOOK_SECONDS
            while not self.loop.is_stopping:
                server.handle_request()


class _Request(WSGIRequestHandler):
    timeout = _SLOW_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server uses
        """Nothing: what watches asks every few seconds."""

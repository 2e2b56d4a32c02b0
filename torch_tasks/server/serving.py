"""``torch-tasks serve``: one process that listens until it is ended."""

from __future__ import annotations

import ipaddress
import logging
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import uvicorn

from torch_tasks.errors import InvalidSettings, ProcessNotStarted
from torch_tasks.machine.own_server import recorded
from torch_tasks.server.application import application
from torch_tasks.server.events import EventHub
from torch_tasks.server.protocol import ImpatientProtocol
from torch_tasks.server.tokens import AccessTokens
from torch_tasks.settings import Settings

log = logging.getLogger(__name__)

_HEAD_BYTES = 64 << 10
_BACKLOG = 2048
_ENDING_SECONDS = 3
"""So long clients may take to get the rest of their replies when the server ends."""


def serve(settings: Settings, ready: Callable[[str, str], None]) -> None:
    """Serve until a signal ends the process; ``ready`` gets the address and the file of the owner's own token."""
    host, port = settings.server_host, settings.server_port
    tokens = AccessTokens(settings.state)
    if not is_loopback(host) and not settings.oidc_issuer and all(one.expired for one in tokens.all()):
        raise InvalidSettings(
            f"the server listens at {host}, which others reach, only once somebody has a token for it: "
            "'torch-tasks token create --name NAME --role ROLE' makes one; or once people log in (TORCH_OIDC_ISSUER)"
        )
    own = tokens.own_token()
    _allow_many_connections()
    listener = _listen(host, port)
    scheme = "https" if settings.server_certificate else "http"
    url = f"{scheme}://{_in_url(host)}:{listener.getsockname()[1]}"
    if scheme == "http" and not is_loopback(host):
        log.warning("%s is not encrypted: others on the network can read the tokens; set TORCH_SERVER_CERTIFICATE", url)
    hub = EventHub()
    public = urlsplit(settings.server_public_url or "").hostname
    names = [
        *settings.server_names,
        *([public] if public else []),
        *([settings.node_address] if settings.node_address else []),
        host,
    ]
    server = _Server(_configuration(settings, hub, names), hub)
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn ends in order, and then has the signal happen once more
        signal.signal(number, lambda *_: None)
    with recorded(settings.state, url):
        ready(url, str(own))
        server.run([listener])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class _Server(uvicorn.Server):
    """Ends the clients' streams first when it is to end: they would last for ever."""

    def __init__(self, config: uvicorn.Config, hub: EventHub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.close()
        await super().shutdown(sockets)


def _configuration(settings: Settings, hub: EventHub, names: Sequence[str]) -> uvicorn.Config:
    class Protocol(ImpatientProtocol):
        SLOW_SECONDS = settings.server_slow_seconds

    return uvicorn.Config(
        application(settings, hub, names),
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_ENDING_SECONDS,
        ssl_certfile=settings.server_certificate,
        ssl_keyfile=settings.server_key,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(
            family, kind, protocol
        )  # asyncio sends small replies at once only where it knows of TCP
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ProcessNotStarted(
            f"the server cannot listen at {host}, port {port}: {error.strerror}; --port or TORCH_SERVER_PORT names "
            "another one"
        ) from None
    return listener


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _allow_many_connections() -> None:
    """As many open files as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

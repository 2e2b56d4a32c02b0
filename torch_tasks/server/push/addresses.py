"""To which addresses the server sends pushes: a browser names them, so they could be anything."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Collection
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from torch_tasks.errors import InvalidRequest

_LONGEST = 1024
_SECONDS = 10


def read_endpoint(address: str) -> SplitResult:
    """The parts of a push service's address; :class:`InvalidRequest` if it is none."""
    try:
        parts = urlsplit(address)
        is_one = parts.scheme == "https" and parts.hostname and not (parts.username or parts.password or parts.fragment)
        _ = parts.port
    except ValueError:
        is_one = False
    if not is_one or len(address) > _LONGEST or not address.isascii() or not address.isprintable() or " " in address:
        raise InvalidRequest("this is no address of a push service: it begins with https://, and names a host")
    return parts


def resolve(parts: SplitResult, allowed: Collection[str]) -> Any:
    """Where to connect to; :class:`InvalidRequest` for an address inside, unless it is allowed by its name."""
    host, port = str(parts.hostname), parts.port or 443
    try:
        found = [one[4] for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise InvalidRequest(f"the push service {host} is not found: {error}") from None
    if f"{host}:{port}" in allowed:
        return found[0]
    if port != 443 or not all(_is_public(str(one[0])) for one in found):
        raise InvalidRequest(
            f"{host}, port {port}, is no push service of the internet; TORCH_PUSH_SERVICES lists others that are asked"
        )
    return found[0]


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.sixtofour or address.teredo or address in _TRANSLATED:
            return False
        address = address.ipv4_mapped or address
    return address.is_global and not address.is_multicast


_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


class CheckedConnection(HTTPSConnection):
    """Connects to the address that was looked at, whatever the name leads to a moment later; follows nothing."""

    def __init__(self, parts: SplitResult, allowed: Collection[str]) -> None:
        super().__init__(str(parts.hostname), parts.port or 443, timeout=_SECONDS)
        self._address = resolve(parts, allowed)
        self._trust = ssl.create_default_context()

    def connect(self) -> None:
        plain = socket.create_connection(self._address[:2], _SECONDS)
        self.sock = self._trust.wrap_socket(plain, server_hostname=self.host)

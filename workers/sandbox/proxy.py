"""The way out of a box with a list of hosts: a proxy at a Unix socket, which leads to these hosts alone.

It takes ``CONNECT host:port`` for HTTPS, and requests with a whole address for HTTP. Names are resolved here, so a
program learns nothing of the network by asking for them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from torch_tasks.state_folder import require_short
from torch_tasks.system.files import make_folder, usable
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

_HEAD_BYTES, _HEAD_SECONDS, _CONNECT_SECONDS = 64 << 10, 10.0, 20.0
_PIECE = 64 << 10
_WAITING = 64
"""So many connections may wait to be taken."""
_PORTS = {"http": 80, "https": 443}
_DEFAULT_PORTS = frozenset(_PORTS.values())


class Refused(Exception):
    """The request is not carried out; with the status that says so."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


def is_allowed(hosts: str, host: str, port: int) -> bool:
    """Whether a list of hosts, with commas between them, lets this host and port be reached."""
    name = host.lower().rstrip(".")
    for listed in hosts.lower().split(","):
        pattern, _, number = listed.partition(":")
        fits = name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern
        if fits and (port == int(number) if number else port in _DEFAULT_PORTS):
            return True
    return False


class HostProxy:
    """Serves one agent's box from a thread of its own, as long as its worker lives."""

    def __init__(self, path: Path, hosts: str, on_refusal: Callable[[str], None]) -> None:
        """``on_refusal`` is told the host and port that were refused."""
        self._path = require_short(path)
        self._hosts = hosts
        self._on_refusal = on_refusal
        self._listener = self._listen()
        self._thread = Loop(f"proxy {path}", lambda: asyncio.run(self._serve()))
        self._thread.start()

    def _listen(self) -> socket.socket:
        """The socket, in place of a former worker's."""
        make_folder(self._path.parent)
        new = self._path.with_name(f".{self._path.name}")
        new.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        with usable(self._path):
            listener.bind(str(new))
            new.chmod(0o600)
            listener.listen(_WAITING)
            new.replace(self._path)
        return listener

    async def _serve(self) -> None:
        if self._listener.fileno() < 0:  # an error ended the round before
            self._listener = self._listen()
        async with await asyncio.start_unix_server(self._meet, sock=self._listener, limit=_HEAD_BYTES) as server:
            await server.serve_forever()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            host, port, first = destination(head)
            if not is_allowed(self._hosts, host, port):
                self._on_refusal(f"{host}:{port}")
                raise Refused("403 Forbidden", f"this agent may not reach {host}:{port}; it may reach {self._hosts}")
            answer, way = await self._connected(host, port)
        except asyncio.LimitOverrunError:
            await _say(writer, Refused("431 Request Header Fields Too Large", "the request's head is too long"))
        except Refused as refused:
            await _say(writer, refused)
        else:
            try:
                if first is None:
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    way.write(first)
                await asyncio.gather(_pour(reader, way), _pour(answer, writer))
            finally:
                way.transport.abort()

    async def _connected(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await asyncio.open_connection(host, port)
        except OSError as error:
            raise Refused("502 Bad Gateway", f"{host}:{port} cannot be reached: {error}") from None


def destination(head: bytes) -> tuple[str, int, bytes | None]:
    """Where a request is to go, and what is sent there first; nothing for ``CONNECT``. Raises :class:`Refused`."""
    try:
        line, _, rest = head.decode("latin-1").partition("\r\n")
        method, target, protocol = line.split(" ")
        if method == "CONNECT":
            address = urlsplit(f"//{target}")
            if address.hostname and address.port:
                return address.hostname, address.port, None
        address = urlsplit(target)
        if address.scheme == "http" and address.hostname:
            path = (address.path or "/") + (f"?{address.query}" if address.query else "")
            # One request for one connection: the next one may be for another host.
            kept = [one for one in rest.split("\r\n") if not one.lower().startswith(("proxy-", "connection:"))]
            first = "\r\n".join((f"{method} {path} {protocol}", "Connection: close", *kept))
            return address.hostname, address.port or _PORTS["http"], first.encode("latin-1")
    except ValueError:
        pass
    raise Refused("400 Bad Request", "the proxy takes CONNECT host:port and http://host/… alone")


async def _say(writer: asyncio.StreamWriter, refused: Refused) -> None:
    body = f"{refused}\n".encode()
    lines = (
        f"HTTP/1.1 {refused.status}",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    writer.write("\r\n".join((*lines, "", "")).encode() + body)
    await writer.drain()
    writer.write_eof()


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_PIECE):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()

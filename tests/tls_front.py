"""TLS before a server on a Unix socket: the embedded Valkey speaks none itself.

Usage: python tls_front.py CERTIFICATE KEY ADDRESS PORT SOCKET
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import suppress


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until it ends."""
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(certificate: str, key: str, address: str, port: str, socket: str) -> None:
    """Listen until the process is ended."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_unix_connection(socket)
        await asyncio.gather(pass_on(reader, to_server[1]), pass_on(to_server[0], writer))

    server = await asyncio.start_server(meet, address, int(port), ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

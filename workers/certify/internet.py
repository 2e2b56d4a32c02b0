"""The internet as a CLI meets it behind a proxy: a few hosts on loopback, each with a page or two.

This machine need not know the hosts' names, and nothing leaves it: the proxy answers for the hosts. A program that
trusts :attr:`Internet.certificate` accepts them.
"""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from torch_tasks.system.loops import in_background


class Internet(ThreadingHTTPServer):
    """Serves these pages, ``host/path``, and no others; :attr:`asked` has every one that was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path, pages: Collection[str]) -> None:
        self.certificate = folder / "internet.pem"
        self.pages = pages
        self.asked: list[str] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, _certify(self.certificate, pages))
        super().__init__(("127.0.0.1", 0), _Page)

    @property
    def url(self) -> str:
        """The proxy's address."""
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> Self:
        """Answer from now on."""
        in_background("internet", self.serve_forever)
        return self

    def end(self) -> None:
        """Answer no more."""
        self.shutdown()
        self.server_close()


class _Page(BaseHTTPRequestHandler):
    """One tunnel to one host."""

    protocol_version = "HTTP/1.1"
    server: Internet
    _host = ""

    def do_CONNECT(self) -> None:
        self._host = self.path.partition(":")[0]
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.request = self.server.context.wrap_socket(self.connection, server_side=True)
        self.setup()
        self.close_connection = False

    def do_GET(self) -> None:
        page = self._host + self.path
        self.server.asked.append(page)
        self.send_response(200 if page in self.server.pages else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


def _certify(certificate: Path, pages: Collection[str]) -> Path:
    """Write a certificate for the hosts of these pages, which is its own authority; returns its key."""
    hosts = sorted({f"DNS:{page.partition('/')[0]}" for page in pages})
    key = certificate.with_suffix(".key")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=An internet on loopback"]
    subprocess.run([*argv, "-addext", f"subjectAltName={','.join(hosts)}"], check=True, capture_output=True)
    return key

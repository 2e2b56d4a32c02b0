"""The proxy of a box: which hosts it leads to, what it takes, what it says to everything else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from machine import short_folder

from torch_tasks.model.agent import AgentSpec
from torch_tasks.workers.sandbox.proxy import HostProxy, Refused, destination, is_allowed


@pytest.mark.parametrize(
    ("hosts", "host", "port", "is_let_through"),
    [
        ("api.example", "api.example", 443, True),
        ("api.example", "API.example.", 80, True),
        ("api.example", "api.example", 22, False),
        ("api.example:8080", "api.example", 8080, True),
        ("api.example:8080", "api.example", 443, False),
        ("api.example", "evil-api.example", 443, False),
        ("api.example", "api.example.evil.org", 443, False),
        ("*.example", "api.example", 443, True),
        ("*.example", "example", 443, False),
        ("*.example", "evilexample", 443, False),
        ("a.example,b.example", "b.example", 443, True),
        ("a.example,b.example", "c.example", 443, False),
    ],
)
def test_which_hosts_are_let_through(hosts: str, host: str, port: int, is_let_through: bool) -> None:
    assert is_allowed(hosts, host, port) is is_let_through


@pytest.mark.parametrize("network", [["a.example", "*.b.org"], "a.example,*.b.org"])
def test_a_network_is_a_list_or_a_text(network: object) -> None:
    assert AgentSpec.model_validate({"id": "a-1", "role": "a", "network": network}).network == "a.example,*.b.org"


@pytest.mark.parametrize("network", ["http://a.example", "a.example,all", "", [], 7, "a b", "a.*"])
def test_what_is_no_network_is_refused(network: object) -> None:
    with pytest.raises(ValueError, match="host"):
        AgentSpec.model_validate({"id": "a-1", "role": "a", "network": network})


@pytest.mark.parametrize(
    ("head", "goes_to"),
    [
        ("CONNECT a.example:443 HTTP/1.1\r\n\r\n", ("a.example", 443, None)),
        ("GET http://a.example/b?c HTTP/1.1\r\nHost: a.example\r\nProxy-Connection: x\r\n\r\n",
         ("a.example", 80, b"GET /b?c HTTP/1.1\r\nConnection: close\r\nHost: a.example\r\n\r\n")),
        ("GET http://a.example:81 HTTP/1.1\r\n\r\n", ("a.example", 81, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")),
    ],
)  # fmt: skip
def test_where_a_request_goes(head: str, goes_to: tuple[str, int, bytes | None]) -> None:
    assert destination(head.encode()) == goes_to


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\n\r\n",
        "CONNECT a.example HTTP/1.1\r\n\r\n",
        "CONNECT a:b:c HTTP/1.1\r\n\r\n",
        "GET ftp://a.example/ HTTP/1.1\r\n\r\n",
        "\r\n\r\n",
        "CONNECT [::1 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_it_does_not_take_is_refused(head: str) -> None:
    with pytest.raises(Refused, match="takes CONNECT"):
        destination(head.encode())


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"hello {self.path}".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """Where a server answers."""
    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(path: Path, request: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(request.encode())
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def test_it_leads_to_the_hosts_on_its_list_alone(port: int) -> None:
    refused: list[str] = []
    path = short_folder() / "desk" / "proxy"
    HostProxy(path, f"127.0.0.1:{port},nowhere.invalid", refused.append)
    assert "hello /a?b" in ask(path, f"GET http://127.0.0.1:{port}/a?b HTTP/1.0\r\n\r\n")
    assert "hello /c" in ask(path, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nGET /c HTTP/1.0\r\n\r\n")
    answer = ask(path, "CONNECT evil.example:443 HTTP/1.1\r\n\r\n")
    assert answer.startswith("HTTP/1.1 403")
    assert "may not reach evil.example:443" in answer
    assert refused == ["evil.example:443"]
    assert ask(path, "CONNECT nowhere.invalid:443 HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 502")
    assert ask(path, "nonsense\r\n\r\n").startswith("HTTP/1.1 400")
    path.unlink()
    path.parent.rmdir()
    path.parents[1].rmdir()

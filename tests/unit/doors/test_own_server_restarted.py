"""A process that asks this machine's own server waits for it while it is started again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from torch_tasks.errors import NotAuthenticated
from torch_tasks.link.server import ServerLink
from torch_tasks.machine.own_server import recorded
from torch_tasks.settings import settings
from torch_tasks.system.files import write_private


class Answers(BaseHTTPRequestHandler):
    """Replies with the token that came."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        reply = f'"{self.headers["Authorization"]}"'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_BROKER_CONNECT_SECONDS", "20")
    settings.cache_clear()
    write_private(settings().state.server_token, "own-token\n")
    yield
    settings.cache_clear()


def test_a_call_waits_for_the_server_that_is_started_again(url: str, mine: None) -> None:
    link = ServerLink(url)
    with recorded(settings().state, url):
        assert link.call("task.list", {}) == "Bearer own-token"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(link.call, "task.list", {})
        with pytest.raises(TimeoutError):
            asked.result(0.3)
        with recorded(settings().state, url):
            assert asked.result(20) == "Bearer own-token"


def test_who_takes_the_port_of_a_server_that_ended_gets_no_token(url: str, mine: None) -> None:
    with pytest.raises(NotAuthenticated, match="there is no token for the server"):
        ServerLink(url).call("task.list", {})

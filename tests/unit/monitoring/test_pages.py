"""The port at which programs that watch a machine read its pages."""

from __future__ import annotations

import json
import logging
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from waiting import until

from torch_tasks.errors import ProcessNotStarted
from torch_tasks.monitoring.pages import Page, PageKeeper, PageServer
from torch_tasks.system.loops import Loop

LOOPBACK = "127.0.0.1"


@contextmanager
def serving(text: Callable[[], bytes], port: int = 0) -> Iterator[PageServer]:
    """A server with one page, until it is not needed any more."""
    with PageServer(LOOPBACK, port, {"/metrics": lambda: Page(text())}) as server:
        server.timeout = 0.05
        loop = Loop("pages", server.handle_request)
        loop.start()
        yield server
        loop.stop()
        loop.join(10)


def get(url: str, path: str = "/metrics") -> httpx2.Response:
    return httpx2.get(url + path, trust_env=False, timeout=10)


def test_each_request_gets_what_is_read_then() -> None:
    numbers = iter(range(10))
    with serving(lambda: f"torch_agents {next(numbers)}\n".encode()) as server:
        answers = [get(server.url) for _ in range(3)]
    assert [answer.text for answer in answers] == ["torch_agents 0\n", "torch_agents 1\n", "torch_agents 2\n"]
    assert {answer.headers["content-type"].split(";")[0] for answer in answers} == {"text/plain"}
    assert {answer.status_code for answer in answers} == {200}


def test_nothing_else_is_there() -> None:
    with serving(lambda: b"") as server:
        answer = get(server.url, "/agents/x/tally.json")
    assert (answer.status_code, answer.text) == (404, "there are /metrics\n")


def test_what_cannot_be_read_is_said_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise RuntimeError("no such thing")

    with serving(fail) as server:
        answer = get(server.url)
    assert answer.status_code == 500
    assert "the log of this process says why" in answer.text
    assert "no such thing" not in answer.text
    assert "/metrics cannot be read" in caplog.text


def test_a_client_that_says_nothing_holds_nobody_up() -> None:
    with serving(lambda: b"here\n") as server, socket.create_connection((LOOPBACK, server.server_port)):
        assert get(server.url).text == "here\n"


def test_a_port_in_use_is_left_for_a_free_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with serving(lambda: b"first\n") as first, serving(lambda: b"second\n", first.server_port) as second:
        assert second.server_port != first.server_port
        assert (get(first.url).text, get(second.url).text) == ("first\n", "second\n")
        assert f"port {first.server_port} is in use: /metrics are at {second.url}" in caplog.text


def test_an_address_of_another_machine_is_refused_by_name() -> None:
    with pytest.raises(ProcessNotStarted, match=r"203\.0\.113\.7 .*TORCH_METRICS_HOST"):
        PageServer("203.0.113.7", 0, {"/metrics": lambda: Page(b"")})


def test_its_address_is_in_a_file_of_its_owners(tmp_path: Path) -> None:
    keeper = PageKeeper(LOOPBACK, 0, {"/healthz": lambda: Page(b"ok\n")}, tmp_path / "metrics.json")
    keeper.loop.start()
    file = tmp_path / "metrics.json"
    until(file.exists, "it is written")
    assert get(json.loads(file.read_text())["url"], "/healthz").text == "ok\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keeper.loop.stop()

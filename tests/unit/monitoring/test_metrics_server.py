"""The port at which Prometheus reads a machine."""

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

from torch_tasks.errors import ProcessNotStarted
from torch_tasks.monitoring.metrics_server import MetricsServer
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.loops import Loop

LOOPBACK = "127.0.0.1"


@contextmanager
def serving(text: Callable[[], bytes], port: int = 0) -> Iterator[MetricsServer]:
    """A server, until it is not needed any more."""
    with MetricsServer(LOOPBACK, port, text) as server:
        server.timeout = 0.05
        loop = Loop("metrics", server.handle_request)
        loop.start()
        yield server
        loop.stop()
        loop.join(10)


def get(url: str) -> httpx2.Response:
    return httpx2.get(url, trust_env=False, timeout=10)


def test_each_request_gets_what_is_read_then() -> None:
    numbers = iter(range(10))
    with serving(lambda: f"torch_agents {next(numbers)}\n".encode()) as server:
        answers = [get(server.url) for _ in range(3)]
    assert [answer.text for answer in answers] == ["torch_agents 0\n", "torch_agents 1\n", "torch_agents 2\n"]
    assert {answer.headers["content-type"].split(";")[0] for answer in answers} == {"text/plain"}
    assert {answer.status_code for answer in answers} == {200}


def test_nothing_else_is_there() -> None:
    with serving(lambda: b"") as server:
        answer = get(server.url.removesuffix("/metrics") + "/agents/x/tally.json")
    assert (answer.status_code, answer.text) == (404, "/metrics has the metrics\n")


def test_what_cannot_be_read_is_said_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise RuntimeError("no such thing")

    with serving(fail) as server:
        answer = get(server.url)
    assert answer.status_code == 500
    assert "see the log" in answer.text
    assert "no such thing" not in answer.text
    assert "the metrics cannot be read" in caplog.text


def test_a_client_that_says_nothing_holds_nobody_up() -> None:
    with serving(lambda: b"here\n") as server, socket.create_connection((LOOPBACK, server.server_port)):
        assert get(server.url).text == "here\n"


def test_a_port_in_use_is_left_for_a_free_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with serving(lambda: b"first\n") as first, serving(lambda: b"second\n", first.server_port) as second:
        assert second.server_port != first.server_port
        assert (get(first.url).text, get(second.url).text) == ("first\n", "second\n")
        assert f"port {first.server_port} is in use: metrics are at {second.url}" in caplog.text


def test_an_address_of_another_machine_is_refused_by_name() -> None:
    with pytest.raises(ProcessNotStarted, match=r"203\.0\.113\.7 .*TORCH_METRICS_HOST"):
        MetricsServer("203.0.113.7", 0, lambda: b"")


def test_its_address_is_in_the_state_folder(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    with serving(lambda: b"") as server:
        server.record(state)
        assert json.loads(state.metrics_address.read_text())["url"] == server.url
    assert stat.S_IMODE(state.metrics_address.stat().st_mode) == 0o600

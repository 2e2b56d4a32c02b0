"""Clients that are slow, silent or many: they are cut off or served, and the others do not notice."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx2
import psutil
import pytest
from nodes import Broker
from served import Served, served
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.operations.operation import WAIT_SECONDS

SLOW_SECONDS = 1.5
WAITING, IDLE = 200, 1000
WATCHED_SECONDS = 10.0
MOST_OF_A_CORE = 0.10


@pytest.fixture(scope="module")
def server(broker: Broker, torch: Torch) -> Iterator[Served]:
    with served(broker, TORCH_SERVER_SLOW_SECONDS=str(SLOW_SECONDS)) as server:
        yield server


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """This process may have as many connections as its user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(server: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def answer_to(connection: socket.socket) -> bytes:
    """All that the server still says before it closes the connection."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            said += piece
    return said


def connections_of(server: Served) -> int:
    found = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == server.port for one in found)


HALVES = {
    "nothing": b"",
    "half a line": b"POST /api/v1/ta",
    "half a head": b"POST /api/v1/task.enqueue HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00",
    "endless head": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000,
    "two lengths": b"POST /api/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
}


@pytest.mark.parametrize("case", HALVES)
def test_a_request_that_never_becomes_one_is_cut_off(server: Served, case: str) -> None:
    with connected(server) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(HALVES[case])
        said = answer_to(connection)  # returns once the server has closed it
    assert not said or said.startswith(b"HTTP/1.1 4")


def test_a_head_that_comes_in_drops_is_cut_off(server: Served) -> None:
    begun = time.monotonic()
    with connected(server) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_in_drops(connection, b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 1000)
    assert time.monotonic() - begun < 15


def send_in_drops(connection: socket.socket, text: bytes) -> None:
    for byte in text:
        connection.send(bytes([byte]))
        time.sleep(0.02)


def test_a_body_that_stops_half_way_is_refused_and_nothing_is_done(server: Served, torch: Torch) -> None:
    before = len(torch.tasks())
    head = (
        f"POST /api/v1/task.enqueue HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.own_token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    with connected(server) as connection:
        connection.sendall(head.encode() + b'{"prompt": "half')
        said = answer_to(connection)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"RequestNotTaken" in said
    assert len(torch.tasks()) == before


def test_a_client_that_never_reads_is_cut_off(server: Served) -> None:
    until(lambda: connections_of(server) == 0, "earlier connections are gone")
    request = b"GET /api/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(0.2)
        with suppress(OSError):  # at some time the server takes no more
            connection.sendall(request * 2000)
        until(lambda: connections_of(server) == 0, "it is cut off")


def test_others_are_served_beside_a_thousand_connections(server: Served) -> None:
    with ExitStack() as stack:
        for number in range(IDLE):
            connection = stack.enter_context(connected(server))
            if number % 2:
                connection.sendall(b"GET /api/v1/task.list HTTP/1.1\r\nHost: ")
        with server.client() as client:
            for _ in range(20):
                assert client.get("/api/v1/task.list").status_code == 200
    until(lambda: connections_of(server) == 0, "all of them are gone")


def test_two_hundred_that_wait_cost_little_and_hear_of_everything(server: Served, torch: Torch) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(
            server.client(limits=httpx2.Limits(max_connections=WAITING, max_keepalive_connections=WAITING))
        )
        streams = [stack.enter_context(client.stream("GET", "/api/v1/events")).iter_lines() for _ in range(WAITING)]
        for stream in streams:
            assert next(line for line in stream if line.startswith("event:")) == "event: begin"
        process = psutil.Process(server.process.pid)
        before, begun = process.cpu_times(), time.monotonic()
        time.sleep(WATCHED_SECONDS)  # what is measured, not what is waited for
        after, took = process.cpu_times(), time.monotonic() - begun
        used = (after.user + after.system - before.user - before.system) / took
        assert used < MOST_OF_A_CORE, f"{used:.1%} of a core"

        task = torch.enqueue("for all to hear")
        task.cancel()
        for stream in streams:
            assert any(task.id in line and '"cancelled"' in line for line in stream)


def test_two_hundred_wait_for_a_task_in_a_few_threads(server: Served, torch: Torch) -> None:
    task = torch.enqueue("for all to wait for")

    async def wait_for_it() -> list[str]:
        limits = httpx2.Limits(max_connections=WAITING)
        headers = {"Authorization": f"Bearer {server.own_token}"}
        async with httpx2.AsyncClient(
            base_url=server.url, headers=headers, trust_env=False, timeout=60, limits=limits
        ) as client:
            asked = {"task_id": task.id, "seconds": "30"}
            waiting = [asyncio.create_task(client.get("/api/v1/task.wait", params=asked)) for _ in range(WAITING)]
            while connections_of(server) < WAITING:
                await asyncio.sleep(0.05)
            task.cancel()
            return [(await one).json().get("state") for one in waiting]

    assert asyncio.run(wait_for_it()) == ["cancelled"] * WAITING
    assert psutil.Process(server.process.pid).num_threads() < WAITING / 2


def test_a_client_that_comes_back_goes_on_after_its_last_event(server: Served, torch: Torch) -> None:
    with server.client() as client:
        with client.stream("GET", "/api/v1/events?kinds=tasks") as stream:
            lines = stream.iter_lines()
            begin = next(line for line in lines if line.startswith("id:")).removeprefix("id: ")
        tasks = [torch.enqueue(f"task {number}") for number in range(3)]
        for task in tasks:
            task.cancel()
        headers = {"Last-Event-ID": begin}
        with client.stream("GET", "/api/v1/events?kinds=tasks", headers=headers) as stream:
            lines = stream.iter_lines()
            for task in tasks:
                assert next(line for line in lines if task.id in line and '"cancelled"' in line)
        with client.stream("GET", "/api/v1/events", headers={"Last-Event-ID": "another-7"}) as stream:
            assert next(line for line in stream.iter_lines() if line == "event: missed")


def test_a_client_goes_on_after_its_last_event_at_a_server_that_was_started_again(server: Served, torch: Torch) -> None:
    with server.client() as client, client.stream("GET", "/api/v1/events?kinds=tasks") as stream:
        begin = next(line for line in stream.iter_lines() if line.startswith("id:")).removeprefix("id: ")
    server.end()
    meanwhile = torch.enqueue("while no server was there")
    meanwhile.cancel()
    server.start()
    with server.client() as client:
        with client.stream("GET", "/api/v1/events?kinds=tasks", headers={"Last-Event-ID": begin}) as stream:
            told: list[str] = []
            for line in stream.iter_lines():
                told.append(line)
                if meanwhile.id in line and '"cancelled"' in line:
                    break
        assert "event: missed" not in told


def next_event(monitor: subprocess.Popen[str]) -> dict[str, str]:
    assert monitor.stdout
    assert monitor.stderr
    line = monitor.stdout.readline()
    assert line, f"the monitor has ended: {monitor.stderr.read()}"
    event: dict[str, str] = json.loads(line)
    return event


def test_the_monitor_goes_on_over_a_restart_of_the_server(server: Served, torch: Torch) -> None:
    argv = [sys.executable, "-m", "torch_tasks.cli", "--server", server.url, "monitor", "--json", "--only", "tasks"]
    env = {**server.env, "TORCH_BROKER_CONNECT_SECONDS": "60"}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as monitor:
        try:
            assert monitor.stdout
            assert monitor.stderr
            begun = time.monotonic()
            assert "Ctrl-C ends it" in monitor.stderr.readline()
            assert time.monotonic() - begun < WAIT_SECONDS, "the first reply waits for no event"
            tasks = []
            for number in range(2):
                tasks.append(torch.enqueue(f"task {number}"))
                tasks[-1].cancel()
                told = next_event(monitor)
                assert (told["id"], told["what"]) == (tasks[-1].id, "cancelled")
                if number == 0:
                    server.end()
                    tasks.append(torch.enqueue("while no server was there"))
                    tasks[-1].cancel()
                    server.start()
                    assert next_event(monitor)["id"] == tasks[-1].id
        finally:
            monitor.terminate()
        assert "missed" not in monitor.stderr.read()


def test_it_is_not_ready_while_events_cannot_be_read(server: Served, broker: Broker) -> None:
    def reasons() -> list[str]:
        with server.client("") as client:
            return list(client.get("/readyz").json()["reasons"])

    until(lambda: reasons() == [], "it is ready")
    broker.client.delete(keys.NOTICES)
    broker.client.set(keys.NOTICES, "of another program")
    why = until(reasons, "it says so")
    assert why[0].startswith("the fleet's events are not read: on the broker, the key")
    broker.client.delete(keys.NOTICES)
    until(lambda: reasons() == [], "it is ready again")


def test_a_stream_ends_when_its_token_is_revoked(server: Served, torch: Torch) -> None:
    with server.client(server.token("guest", "viewer")) as client, client.stream("GET", "/api/v1/events") as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line == "event: begin")
        server.command("token", "revoke", "guest")
        task = torch.enqueue("not for guests")
        task.cancel()
        assert not any(task.id in line for line in lines)

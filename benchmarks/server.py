"""Asking by HTTP against asking from Python, and how soon a client hears of a task's change."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import httpx2
import psutil

from benchmarks.enqueue import AGENT, PROMPT
from benchmarks.harness import READY_SECONDS, Stage, await_true, clock, end
from benchmarks.measures import Measure, percentile
from torch_tasks import Torch
from torch_tasks.machine.own_server import server_of
from torch_tasks.state_folder import StateFolder

WAITING = 200
WATCHED_SECONDS = 20.0


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Requests, then events, then what clients cost that only wait."""
    with served(stage) as (process, url, token):
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
            return [
                *_enqueued(stage, client, Torch(server=url, token=token), 50 if quick else 500),
                *_heard(stage, client, 20 if quick else 200),
                _cost_of_waiting(process, url, headers, 2.0 if quick else WATCHED_SECONDS),
            ]


@contextmanager
def served(stage: Stage) -> Iterator[tuple[psutil.Process, str, str]]:
    state = StateFolder(stage.folder)
    argv = [sys.executable, "-m", "torch_tasks.cli", "serve", "--port", "0"]
    with (stage.folder / "server.log").open("wb") as log:
        process = psutil.Popen(argv, stdout=log, stderr=log, env=dict(os.environ), stdin=subprocess.DEVNULL)
    try:
        await_true(lambda: server_of(state) is not None, READY_SECONDS, "the server listens")
        own = server_of(state)
        assert own
        await_true(lambda: _answers(own.url), READY_SECONDS, "the server answers")
        yield process, own.url, state.server_token.read_text().strip()
    finally:
        end(process)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", trust_env=False).status_code == httpx2.codes.OK
    except httpx2.TransportError:
        return False


def _enqueued(stage: Stage, client: httpx2.Client, remote: Torch, count: int) -> Iterator[Measure]:
    def by_http() -> None:
        client.post("/api/v1/task.enqueue", json={"prompt": PROMPT, "agent": AGENT}).raise_for_status()

    ways = {
        "Torch().enqueue": partial(stage.torch.enqueue, PROMPT, agent=AGENT),
        "POST task.enqueue": by_http,
        "Torch(server=…).enqueue": partial(remote.enqueue, PROMPT, agent=AGENT),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # connections, imports, scripts
    for _ in range(count):
        for name, way in ways.items():
            took[name].append(clock(way) * 1000)
    for name, times in took.items():
        yield from (Measure(f"{name}, p{percent}", percentile(times, percent), "ms") for percent in (50, 99))


def _heard(stage: Stage, client: httpx2.Client, count: int) -> Iterator[Measure]:
    """From the moment in which a task is cancelled until a client has read of it."""
    times = []
    with client.stream("GET", "/api/v1/events", params={"kinds": "tasks"}) as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line == "event: begin")
        for _ in range(count):
            task = stage.torch.enqueue(PROMPT, agent=AGENT)
            begun = time.perf_counter()
            task.cancel()
            next(line for line in lines if task.id in line and '"cancelled"' in line)
            times.append((time.perf_counter() - begun) * 1000)
    yield from (Measure(f"an event, with the cancelling, p{p}", percentile(times, p), "ms") for p in (50, 99))


def _cost_of_waiting(process: psutil.Process, url: str, headers: dict[str, str], seconds: float) -> Measure:
    limits = httpx2.Limits(max_connections=WAITING, max_keepalive_connections=WAITING)
    with httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=60, limits=limits) as client:
        streams = [client.send(client.build_request("GET", "/api/v1/events"), stream=True) for _ in range(WAITING)]
        before = process.cpu_times()
        time.sleep(seconds)
        after = process.cpu_times()
        for stream in streams:
            stream.close()
    used = after.user + after.system - before.user - before.system
    return Measure(f"{WAITING} clients that wait for events, of a core", 100 * used / seconds, "%", goal=10)

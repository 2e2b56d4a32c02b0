"""What Torch's tools cost a model's program: the server's start and memory, and a call, beside the same in Python."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import anyio
import psutil
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from benchmarks.harness import Stage, clock
from benchmarks.measures import Measure, percentile

TORCH_TASKS = str(Path(sys.executable).with_name("torch-tasks"))
GOAL_MS = 50.0
VERSIONS = {"2026-07-28": "2026-07-28", "with a handshake": "legacy"}


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """The server on standard input, which reaches the broker directly; one call after the other."""
    starts, calls = (2, 20) if quick else (10, 300)
    task = stage.torch.enqueue("true", role="nobody")
    measures = list(anyio.run(_starts, starts))
    for name, mode in VERSIONS.items():
        measures += anyio.run(_calls, name, mode, calls, task.id)
    read = [clock(lambda: stage.torch.task(task.id).record()) for _ in range(calls)]
    wrote = [clock(lambda: stage.torch.enqueue("true", role="nobody")) for _ in range(calls)]
    return [*measures, *_shown("Python: a task's record", read), *_shown("Python: enqueue", wrote)]


async def _starts(times: int) -> list[Measure]:
    """From the start of the process until the client has its list of tools; what the process then takes."""
    took, memory = [], []
    for _ in range(times):
        begun = time.perf_counter()
        async with Client(stdio_client(_command())) as client:
            await client.list_tools()
            took.append(time.perf_counter() - begun)
            await client.call_tool("tasks", {"limit": 1})
            memory.append(_server().memory_full_info().pss)
    return [
        *_shown("start → list of tools", took),
        Measure("memory of the server after a call (PSS)", sum(memory) / len(memory) / (1 << 20), "MiB"),
    ]


def _command() -> StdioServerParameters:
    return StdioServerParameters(command=TORCH_TASKS, args=["mcp"], env=dict(os.environ))


def _server() -> psutil.Process:
    [server] = [child for child in psutil.Process().children() if child.cmdline()[-1:] == ["mcp"]]
    return server


async def _calls(name: str, mode: str, times: int, task: str) -> list[Measure]:
    async with Client(stdio_client(_command()), mode=mode) as client:
        await client.call_tool("task", {"task_id": task})
        read = [await _call(partial(client.call_tool, "task", {"task_id": task})) for _ in range(times)]
        wrote = [
            await _call(partial(client.call_tool, "enqueue", {"prompt": "true", "role": "nobody"}))
            for _ in range(times)
        ]
    return [
        *_shown(f"{name}: call of task", read, GOAL_MS),
        *_shown(f"{name}: call of enqueue", wrote, GOAL_MS),
    ]


async def _call(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    result = await call()  # type: ignore[misc]
    assert not result.is_error
    return time.perf_counter() - begun


def _shown(what: str, seconds: Sequence[float], goal: float | None = None) -> Iterator[Measure]:
    yield Measure(f"{what}, p50", 1000 * percentile(seconds, 50), "ms", goal=goal)
    yield Measure(f"{what}, p99", 1000 * percentile(seconds, 99), "ms")

"""One broker under the traffic of many agents, a quarter of them at work: what it takes, and what it gives."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import psutil

from benchmarks.harness import ROOT, Stage, clock, cpu_seconds
from benchmarks.measures import Measure, percentile
from benchmarks.simulated_agents import ROLES, SKILLS
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import now

STEPS = (250, 500, 1000, 2000)
QUICK_STEPS = (50, 100)
PACE = 16
"""Then a few agents, each so many times as busy as one: the commands of more agents than there can be connections."""
SETTLE_SECONDS = 6.0
PROBES_PER_SECOND = 20
MIB = 1 << 20


class Used(NamedTuple):
    """What was used so far."""

    at: float
    broker_cpu: float
    simulators_cpu: float
    reads: int
    commands: int


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Step by step, with the agents of the step before."""
    found: list[Measure] = []
    steps, seconds = (QUICK_STEPS, 5.0) if quick else (STEPS, 20.0)
    with ExitStack() as stack:
        simulators: list[psutil.Process] = []
        for before, count in zip((0, *steps), steps, strict=False):
            simulators += stack.enter_context(_simulated(before, count - before, 1))
            found += _step(f"{count:,} agents", stage, simulators, seconds)
        found += _arithmetic(steps, found)
    few = steps[0]
    with _simulated(0, few, PACE) as simulators:
        found += _step(f"{few:,} agents as busy as {few * PACE:,}", stage, simulators, seconds)
    return found


@contextmanager
def _simulated(first: int, count: int, pace: int) -> Iterator[list[psutil.Process]]:
    """So many agents more, in two processes."""
    half = count // 2
    shares = ((first, half), (first + half, count - half))
    argvs = [
        [sys.executable, "-m", "benchmarks.simulated_agents", str(start), str(share), str(pace)]
        for start, share in shares
    ]
    with ExitStack() as stack:
        processes = [psutil.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) for argv in argvs]
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
        for process in processes:
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("simulated agents could not enter: what they said stands above")
        yield processes


def _step(name: str, stage: Stage, simulators: list[psutil.Process], seconds: float) -> Iterator[Measure]:
    time.sleep(SETTLE_SECONDS)
    before = _used(stage, simulators)
    took = _probed(stage, seconds)
    passed, broker, simulated, reads, commands = (b - a for a, b in zip(before, _used(stage, simulators), strict=True))
    if any(process.poll() is not None for process in simulators):
        raise RuntimeError(f"{name}: simulated agents ended: what they said stands above")
    info = _info()
    note = f"simulators: {100 * simulated / passed:.0f} % of a core; load {os.getloadavg()[0]:.1f}"
    yield Measure(f"{name}: CPU of the broker", 100 * broker / passed, "% of a core", note=note)
    yield Measure(f"{name}: commands received", reads / passed, "per s")
    yield Measure(f"{name}: commands with those inside scripts", commands / passed, "per s")
    for what, times in took.items():
        for percent in (50, 99):
            yield Measure(f"{name}: {what}, p{percent}", 1000 * percentile(times, percent), "ms")
    yield Measure(f"{name}: connections", info["connected_clients"], "")
    yield Measure(f"{name}: memory of the broker", stage.broker.memory_info().rss / MIB, "MiB")


def _used(stage: Stage, simulators: list[psutil.Process]) -> Used:
    info = _info()
    return Used(
        time.monotonic(),
        cpu_seconds([stage.broker]),
        cpu_seconds(simulators),
        info["total_reads_processed"],
        info["total_commands_processed"],
    )


def _info() -> dict[str, Any]:
    client: Any = fleet().client
    return dict(client.info("everything"))


def _probed(stage: Stage, seconds: float) -> dict[str, list[float]]:
    """What one more client asks meanwhile, and how many seconds each takes."""
    registry, dice, took = fleet().registry, random.Random(1), defaultdict[str, list[float]](list)
    info = registry.register(_PROBE)

    def enqueue() -> None:
        task = stage.torch.enqueue("run the tests and fix what fails", agent="nobody")
        assert task.record().spec.id == task.id

    probes = {
        "heartbeat": lambda: registry.heartbeat(info),
        "find_available_agents": lambda: registry.find_available_agents(
            dice.choice(ROLES), dice.sample(SKILLS, 2), limit=1
        ),
        "enqueue, until its record can be read": enqueue,
    }
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for what, probe in probes.items():
            took[what].append(clock(probe))
        time.sleep(1 / PROBES_PER_SECOND)
    return took


def _arithmetic(steps: Sequence[int], found: list[Measure]) -> Iterator[Measure]:
    """What one agent more costs, and how many fill the broker's one core at that price."""
    values = {measure.name: measure.value or 0 for measure in found}
    first, last = steps[0], steps[-1]

    def each(what: str) -> float:
        return (values[f"{last:,} agents: {what}"] - values[f"{first:,} agents: {what}"]) / (last - first)

    yield Measure("commands of one agent", each("commands received"), "per s")
    yield Measure("connections of one agent", each("connections"), "")
    yield Measure("memory of the broker for one agent", 1024 * each("memory of the broker"), "KiB")
    yield Measure("CPU of the broker for one agent", 10 * each("CPU of the broker"), "ms/s")
    yield Measure("agents that fill the broker's core", 100 / each("CPU of the broker"), "agents")


_PROBE = AgentInfo(
    agent_id="probe",
    role="developer",
    kind="shell",
    node="here",
    pid=1,
    host="here",
    incarnation=0,
    workdir="/tmp",
    tmux_socket="/tmp/none",
    started_at=now(),
)

"""What agents cost that have nothing to do: memory, CPU, wake-ups."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.harness import Agent, Stage, cpu_seconds, wake_ups
from benchmarks.measures import Measure
from torch_tasks.fleet import fleet

SETTLE_SECONDS = 5.0
MIB = 1 << 20


@dataclass(frozen=True)
class IdleCost:
    """What one of several idle agents takes: milliseconds of CPU a second, times a second, MiB."""

    worker_cpu: float
    terminal_cpu: float
    broker_cpu: float
    wake_ups: float
    commands: float
    """To the broker, those inside scripts included."""
    terminals: int
    """How many processes all of them have besides their workers."""
    rss: float
    pss: float
    uss: float
    terminal_pss: float


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Agents that have all done a task, left alone."""
    count, seconds = (4, 10.0) if quick else (20, 60.0)
    with stage.agents(count) as agents:
        time.sleep(SETTLE_SECONDS)
        found = cost(stage, agents, seconds)
    core = count / 10  # milliseconds a second of one of them to the share of a core of all
    return [
        Measure(f"CPU of {count} workers", core * found.worker_cpu, "% of a core"),
        Measure(
            f"CPU of their {found.terminals} tmux servers, clients, shells", core * found.terminal_cpu, "% of a core"
        ),
        Measure("CPU of both", core * (found.worker_cpu + found.terminal_cpu), "% of a core", goal=2),
        Measure("CPU of one worker", found.worker_cpu, "ms/s"),
        Measure("CPU of the broker", core * found.broker_cpu, "% of a core"),
        Measure("wake-ups of one worker", found.wake_ups, "per s"),
        Measure("RSS of one worker", found.rss, "MiB"),
        Measure("PSS of one worker", found.pss, "MiB"),
        Measure("USS of one worker", found.uss, "MiB"),
        Measure("PSS of its tmux and shell", found.terminal_pss, "MiB"),
    ]


def cost(stage: Stage, agents: Sequence[Agent], seconds: float) -> IdleCost:
    """What they take while they are left alone for so long."""
    workers = [agent.worker for agent in agents]
    terminals = [process for agent in agents for process in agent.terminal()]

    def used() -> list[float]:
        counts = [sum(map(wake_ups, workers)), fleet().client.info("stats")["total_commands_processed"]]
        return [time.monotonic(), cpu_seconds(workers), cpu_seconds(terminals), cpu_seconds([stage.broker]), *counts]

    before = used()
    time.sleep(seconds)
    passed, worked, displayed, brokered, woken, asked = (b - a for a, b in zip(before, used(), strict=True))
    every = passed * len(agents)
    memory = [worker.memory_full_info() for worker in workers]
    theirs = [sum(process.memory_full_info().pss for process in agent.terminal()) for agent in agents]
    return IdleCost(
        worker_cpu=1000 * worked / every,
        terminal_cpu=1000 * displayed / every,
        broker_cpu=1000 * brokered / every,
        wake_ups=woken / every,
        commands=asked / every,
        terminals=len(terminals),
        rss=median(one.rss for one in memory) / MIB,
        pss=median(one.pss for one in memory) / MIB,
        uss=median(one.uss for one in memory) / MIB,
        terminal_pss=median(theirs) / MIB,
    )

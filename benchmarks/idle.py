"""What agents cost that have nothing to do: memory, CPU, wake-ups."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.harness import Agent, Stage, cpu_seconds, wake_ups
from benchmarks.measures import Measure

SETTLE_SECONDS = 5.0
MIB = 1 << 20


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Agents that have all done a task, left alone."""
    count, seconds = (4, 10.0) if quick else (20, 60.0)
    with stage.agents(count) as agents:
        time.sleep(SETTLE_SECONDS)
        return [*_activity(stage, agents, seconds), *_memory(agents)]


def _activity(stage: Stage, agents: list[Agent], seconds: float) -> list[Measure]:
    workers = [agent.worker for agent in agents]
    terminals = [process for agent in agents for process in agent.terminal()]

    def used() -> list[float]:
        woken = sum(map(wake_ups, workers))
        return [time.monotonic(), cpu_seconds(workers), cpu_seconds(terminals), cpu_seconds([stage.broker]), woken]

    before = used()
    time.sleep(seconds)
    passed, worked, shown, brokered, woken = (b - a for a, b in zip(before, used(), strict=True))
    count = len(agents)
    return [
        Measure(f"CPU of {count} workers", 100 * worked / passed, "% of a core"),
        Measure(f"CPU of their {len(terminals)} tmux servers, clients, shells", 100 * shown / passed, "% of a core"),
        Measure("CPU of both", 100 * (worked + shown) / passed, "% of a core", goal=2),
        Measure("CPU of one worker", 1000 * worked / passed / count, "ms/s"),
        Measure("CPU of the broker", 100 * brokered / passed, "% of a core"),
        Measure("wake-ups of one worker", woken / passed / count, "per s"),
    ]


def _memory(agents: list[Agent]) -> list[Measure]:
    worker = [agent.worker.memory_full_info() for agent in agents]
    terminal = [[process.memory_full_info() for process in agent.terminal()] for agent in agents]
    return [
        Measure("RSS of one worker", median(memory.rss for memory in worker) / MIB, "MiB"),
        Measure("PSS of one worker", median(memory.pss for memory in worker) / MIB, "MiB"),
        Measure("USS of one worker", median(memory.uss for memory in worker) / MIB, "MiB"),
        Measure(
            "PSS of its tmux and shell", median(sum(m.pss for m in memories) for memories in terminal) / MIB, "MiB"
        ),
    ]

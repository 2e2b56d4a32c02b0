"""What agents ask of the broker, idle and at work: commands, connections, and which commands they are."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import redis

from benchmarks.harness import READY_SECONDS, Stage
from benchmarks.measures import Measure
from torch_tasks.fleet import fleet

SETTLE_SECONDS = 5.0
SHOWN = 10


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Agents left alone, then with a task that takes its time; what scripts do inside the broker is not counted."""
    count, seconds = (4, 15.0) if quick else (20, 60.0)
    client: Any = fleet().client
    with stage.agents(count) as agents:
        time.sleep(SETTLE_SECONDS)
        calls = _calls(client, seconds)
        connections = int(client.info("clients")["connected_clients"]) - 1
        tasks = [stage.torch.enqueue("sleep 1000", agent=agent.id) for agent in agents]
        time.sleep(SETTLE_SECONDS)
        at_work = sum(_calls(client, seconds).values()) / seconds / count
        for task in tasks:
            task.cancel()
        for task in tasks:
            task.result(READY_SECONDS)
    rates = {name: called / seconds / count for name, called in calls.items()}
    measures = [
        Measure("commands of one idle agent", sum(rates.values()), "per s", goal=2),
        Measure("commands of one agent at work", at_work, "per s"),
        Measure("connections of one agent", connections / count, ""),
    ]
    busiest = sorted(rates.items(), key=lambda rate: -rate[1])[:SHOWN]
    return measures + [Measure(f"  {name}", rate, "per s") for name, rate in busiest]


def _calls(client: redis.Redis, seconds: float) -> Counter[str]:
    """How often clients sent each command, with its first key where it is a script."""
    calls: Counter[str] = Counter()
    with client.monitor() as monitor:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not monitor.connection.can_read(timeout=left):  # a read that times out would end the connection
                continue
            sent = monitor.next_command()
            if sent["client_type"] != "lua":
                calls[_name(sent["command"])] += 1
    return calls


def _name(command: str) -> str:
    words = command.split()
    name = words[0].lower()
    return f"{name} {words[3]}" if name == "evalsha" and len(words) > 3 else name

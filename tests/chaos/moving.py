"""The fleet moves to another server and back while tasks flow: all processes follow, nothing is lost or doubled.

``python -m chaos.moving --rounds 4 --tasks 300`` prints for each move how long the fleet waited, then what became of
the tasks. Ends with code 1 if one was lost or doubled.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import click
import httpx2
import psutil
import redis
from waiting import until

from chaos.broker import Broker, free_port
from chaos.client import Order
from chaos.faults import Fault
from chaos.fleet import AGENTS, Fleet
from chaos.oracle import Strike
from chaos.storm import Outcome, storm
from torch_tasks.machine import commands

BETWEEN_SECONDS = 8.0
"""Between two moves."""
LONGEST = 0.8
MOVE_SECONDS = 90.0


class TwoServers(Broker):
    """A server that a fleet has, and another one; its client is one of the server that the fleet has."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(folder, env)
        self._first, self._second = self.client.connection_pool, Broker(folder.with_name("second"), env)
        self._is_first = True
        self._first_url = self.url

    @property
    def other_url(self) -> str:
        """Where the fleet may go."""
        return self._second.url if self._is_first else self._first_url

    @property
    def process(self) -> psutil.Process | None:
        return super().process if self._is_first else self._second.process

    @property
    def processes(self) -> list[psutil.Process]:
        found = super().process, self._second.process
        return [process for process in found if process]

    def start(self) -> None:
        super().start()
        self._second.start()

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        super().end(how)
        self._second.end(how)

    def swap(self) -> None:
        """The fleet has gone to the other one."""
        self._is_first = not self._is_first
        self.client.connection_pool = self._first if self._is_first else self._second.client.connection_pool

    def writers_left(self) -> list[str]:
        """Who is still connected to the server that the fleet has left, without the one that asks."""
        left = redis.Redis.from_url(self.other_url, decode_responses=True, protocol=2)
        own = left.client_id()
        return [str(one) for one in left.client_list() if int(one["id"]) != own]


@dataclass
class Move(Fault):
    """``torch-tasks broker move`` to the server that the fleet does not have."""

    took: list[float] = field(default_factory=list)

    part = "broker"

    @property
    def kind(self) -> str:
        return "move to another server"

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        return fleet.broker.process

    def strike(self, fleet: Fleet) -> Strike | None:
        before, servers = time.time(), cast(TwoServers, fleet.broker)
        fleet.torch("broker", "move", servers.other_url, seconds=MOVE_SECONDS)
        servers.swap()
        self.took.append(time.time() - before)
        return Strike(self.kind, self.recovered_by, before, time.time())


def rounds(count: int, tasks: int, seed: int, agents: Sequence[str] = AGENTS) -> tuple[Outcome, list[float], list[str]]:
    """So many moves while tasks flow; what became of the tasks, the seconds of each move, and who did not follow."""
    choose, took = random.Random(seed), list[float]()
    faults = [
        Move(number * BETWEEN_SECONDS + choose.uniform(2, 4), 1.0, AGENTS[0], signal.SIGKILL, took=took)
        for number in range(count)
    ]
    port = free_port()
    with Fleet(agents, broker=TwoServers) as fleet:
        fleet.keep("server", commands.server(port))
        until(lambda: _is_ready(port), "the server is ready", MOVE_SECONDS)
        outcome = storm(fleet, faults, Order(tasks, count * BETWEEN_SECONDS, seed, fleet.agents, longest=LONGEST))
        until(lambda: _is_ready(port), "the server is ready again", MOVE_SECONDS)
        left = cast(TwoServers, fleet.broker).writers_left()
        outcome.verdict.orphans += fleet.down()
    return outcome, took, left


def _is_ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


@click.command(help=__doc__)
@click.option("--rounds", "count", type=int, default=4, show_default=True)
@click.option("--tasks", type=int, default=300, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
def main(count: int, tasks: int, seed: int) -> None:
    """Print what happened."""
    outcome, took, left = rounds(count, tasks, seed)
    if not outcome.verdict.good:
        click.echo(outcome.report)
    click.echo(outcome.table)
    click.echo(f"seconds of each move: {', '.join(f'{one:.1f}' for one in took)}")
    click.echo("\n".join(f"did not follow: {one}" for one in left))
    raise SystemExit(not outcome.verdict.good or bool(left))


if __name__ == "__main__":
    main()

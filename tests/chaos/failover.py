"""Fail-overs under load: the primary is killed, and the replica that takes over has not heard of its last second.

``python -m chaos.failover --rounds 5 --tasks 500`` prints for each round what the replica had missed and how long the
fleet took, then what became of the tasks. Ends with code 1 if one was lost or doubled.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import click
import psutil
from replicas import Pair, Service, Watched

from chaos.client import Order
from chaos.faults import Fault
from chaos.fleet import AGENTS, Fleet
from chaos.oracle import Strike
from chaos.storm import Outcome, storm

BETWEEN_SECONDS = 12.0
"""Between two fail-overs: enough for the fleet to be well again, and for the former primary to be a replica."""
LONGEST = 0.8


@dataclass
class FailoverFault(Fault):
    """The primary is killed after a second in which its replica heard nothing."""

    missed: list[int] = field(default_factory=list)

    part = "fail-over"

    @property
    def kind(self) -> str:
        return "fail-over that loses a second"

    def victim(self, fleet: Fleet) -> psutil.Process | None:
        return fleet.broker.process

    def strike(self, fleet: Fleet) -> Strike | None:
        before = time.time()
        self.missed.append(cast(Pair, fleet.broker).fail_over(1.0))
        return Strike(self.kind, self.recovered_by, before + 1.0, time.time())

    def heal(self, fleet: Fleet) -> None:
        cast(Pair, fleet.broker).mend()


WAYS: Mapping[str, type[Pair]] = {"sentinel": Watched, "service": Service}
"""How the fleet finds the primary: by Sentinel, or at an address that stays the same."""


def rounds(way: str, count: int, tasks: int, seed: int) -> tuple[Outcome, list[int]]:
    """So many fail-overs while tasks flow; what became of the tasks, and how many bytes each replica had missed."""
    choose = random.Random(seed)
    missed: list[int] = []
    faults = [
        FailoverFault(number * BETWEEN_SECONDS + choose.uniform(2, 4), 2.0, AGENTS[0], signal.SIGKILL, missed=missed)
        for number in range(count)
    ]
    with Fleet(broker=WAYS[way]) as fleet:
        order = Order(tasks, count * BETWEEN_SECONDS, seed, fleet.agents, longest=LONGEST)
        outcome = storm(fleet, faults, order)
        outcome.verdict.orphans += fleet.down()
    return outcome, missed


@click.command(help=__doc__)
@click.option("--way", type=click.Choice(list(WAYS)), default="sentinel", show_default=True)
@click.option("--rounds", "count", type=int, default=5, show_default=True)
@click.option("--tasks", type=int, default=500, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
def main(way: str, count: int, tasks: int, seed: int) -> None:
    """Print what happened."""
    outcome, missed = rounds(way, count, tasks, seed)
    if not outcome.verdict.good:
        click.echo(outcome.report)
    click.echo(outcome.table)
    click.echo(f"not replicated, in bytes: {', '.join(map(str, missed))}")
    raise SystemExit(not outcome.verdict.good)


if __name__ == "__main__":
    main()

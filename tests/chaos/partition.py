"""Two primaries: a host is cut off with the primary, its node, its agents and a client, and the others elect another.

``python -m chaos.partition --rounds 3 --tasks 300`` prints for each cut how long there were two primaries and how much
the cut off one wrote alone, then what became of all tasks. Ends with code 1 if one was lost, or begun on both sides.
Wants root and ``ip``.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import NamedTuple

import click
import pytest
import redis
from appended import whole_lines
from clients import read_settings_anew
from hosts import Host, Wire, why_not
from replicas import (
    NAME,
    QUICK_MS,
    SERVER,
    SLOW_MS,
    WATCHER,
    Process,
    is_in_step,
    know_all,
    named_by,
    offset,
    set_patience,
    url_of,
    watched,
)
from waiting import until

from chaos.client import Order, answer
from chaos.fleet import QUICK, TESTS
from chaos.oracle import Line, Strike, Verdict, judge
from chaos.storm import STILL_SECONDS
from chaos.table import table
from torch_tasks.model.task import TaskRecord
from torch_tasks.settings import Settings
from torch_tasks.store.tasks import TaskRecords

CUT_SECONDS = 8.0
BETWEEN_SECONDS = 12.0
"""From the end of a cut to the next one: enough for the servers to be in step, and the first to be primary again."""
ABILITIES = ("developer", "qa:git", "developer:git")
"""Role and skills of each host's agents: whatever a client hands in, agents of both hosts can do it."""
LONGEST = 0.8
SETTLED_SECONDS = 60.0
EAST_BEGINS = 5001
"""The number of the first task that is handed in on the second host."""


class Cut(NamedTuple):
    """One cut, and what was seen of it."""

    strike: Strike
    two_seconds: float
    """How long each side had a primary."""
    alone: int
    """How many bytes the one that was cut off wrote meanwhile."""

    def __str__(self) -> str:
        return f"two primaries for {self.two_seconds:.1f} s; the one that was cut off wrote {self.alone} bytes alone"


class Divided(Wire):
    """Two hosts with a server each: the first has a Sentinel, the second two, so that they are the majority."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self.west, self.east = (self.add(name, **QUICK, PYTHONPATH=str(TESTS)) for name in ("west", "east"))
        self._first, self._second = (self._process(host, "server", SERVER) for host in self.hosts)
        self._servers = self._first, self._second
        self._sentinels = [
            self._process(host, f"sentinel-{number}", WATCHER, "--sentinel", **watched(self._first))
            for number, host in enumerate((self.west, self.east, self.east))
        ]
        self._records = TaskRecords(self._first.client, Settings(state_dir=self.west.state))
        self._clients: list[subprocess.Popen[bytes]] = []

    def _process(self, host: Host, folder: str, text: str, *options: str, **values: object) -> Process:
        return Process(host.folder / folder, host.env, text, *options, host=host.address, enter=host.enter, **values)

    def start(self) -> None:
        """Have all agents of both hosts be ready."""
        self._first.start()
        self._second.start("--replicaof", "{} {}".format(*self._first.place))
        until(lambda: is_in_step(self._second), "the replica is in step", SETTLED_SECONDS)
        for one in self._sentinels:
            one.start()
        until(lambda: know_all(self._sentinels), "the Sentinels know both servers and each other", SETTLED_SECONDS)
        set_patience(self._sentinels, SLOW_MS)
        keys = str(self.west.folder / "keys")
        self._patch.setenv("TORCH_KEYS_DIR", keys)  # what the fleet signed is verified here
        read_settings_anew()
        for host in self.hosts:
            host.env |= {"TORCH_BROKER_URL": url_of(self._sentinels), "TORCH_KEYS_DIR": keys}
            (host.folder / "effects").mkdir()
            host.up(*map("{}:{}".format, agents_of(host), ABILITIES))

    # ── the cut ──────────────────────────────────────────────────────────────────────────────────────────────────

    def cut(self) -> Cut:
        """Cut the first host off with its primary, and mend everything afterwards."""
        begins, written = time.time(), offset(self._first, "master_repl_offset")
        two_since = 0.0
        with self.west.cut_off():
            set_patience(self._sentinels, QUICK_MS)
            ends = time.monotonic() + CUT_SECONDS
            while time.monotonic() < ends:
                if not two_since and self._is_primary(self._second):
                    two_since = time.monotonic()
                time.sleep(0.05)
            alone = offset(self._first, "master_repl_offset") - written
            assert self._is_primary(self._first), "the server that was cut off gave up by itself"
        assert two_since, "nobody was made the primary while the first host was cut off"
        until(lambda: is_in_step(self._first), "what was cut off is a replica, in step", SETTLED_SECONDS)
        two_seconds = time.monotonic() - two_since
        return Cut(Strike("cut off with the primary", agents_of(self.west)[0], begins, time.time()), two_seconds, alone)

    def change_back(self) -> None:
        """Have the first server be the primary again."""
        until(lambda: know_all(self._sentinels), "the Sentinels are well", SETTLED_SECONDS)
        set_patience(self._sentinels, SLOW_MS)
        until(self._has_changed_back, "the first server is the primary", SETTLED_SECONDS)
        until(lambda: is_in_step(self._second), "the replica is in step", SETTLED_SECONDS)

    def _has_changed_back(self) -> bool:
        with suppress(redis.ResponseError):  # one has just begun, or the replica is not good enough yet
            self._sentinels[-1].client.execute_command("SENTINEL", "FAILOVER", NAME)
        time.sleep(1)
        return named_by(self._sentinels, self._servers) is self._first and self._is_primary(self._first)

    def _is_primary(self, server: Process) -> bool:
        return str(server.client.info("replication")["role"]) == "master"

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def hand_in(self, host: Host, order: Order) -> None:
        """Start a client there that hands these tasks in."""
        argv = [*host.enter, sys.executable, "-m", "chaos.client", str(host.folder), json.dumps(asdict(order))]
        with (host.folder / "client.log").open("ab") as log:
            client = subprocess.Popen(
                argv, cwd=host.work, env=host.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._clients.append(client)

    def accepted(self) -> dict[str, Host]:
        """The tasks whose enqueuing returned, and where."""
        return {line.split()[0]: host for host in self.hosts for line in whole_lines(host.folder / "accepted")}

    def all_handed_in(self) -> list[int]:
        """How each client ended."""
        return [client.wait(STILL_SECONDS + SETTLED_SECONDS) for client in self._clients]

    def settle(self) -> None:
        """Until all accepted tasks have ended, or nothing moves any more."""
        ended, since = -1, time.monotonic()
        tasks = self.accepted()
        while ended < len(tasks) and time.monotonic() < since + STILL_SECONDS:
            states = map(self._records.state, tasks)
            if (now := sum(state is not None and state.ended for state in states)) > ended:
                ended, since = now, time.monotonic()
            time.sleep(0.2)

    def verdict(self, strikes: Sequence[Strike]) -> tuple[Verdict, dict[str, TaskRecord | None]]:
        """What became of the tasks, and their records."""
        tasks = self.accepted()
        effects = {task: Line.read(host.folder / "effects" / task) for task, host in tasks.items()}
        records = {task: self._records.find(task) for task in tasks}
        return judge({task: answer(task) for task in tasks}, effects, records, strikes), records

    def history(self, task: str) -> str:
        """The task's history, and what the logs say of it."""
        said = [entry.model_dump_json(exclude_none=True) for entry in self._records.history(task)]
        for host in self.hosts:
            for log in sorted((host.state / "logs").glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()
                said += [f"{host.name}/{log.name}: {line}" for line in lines if task in line]
        return "\n".join(said)

    def close(self) -> None:
        for client in self._clients:
            client.kill()
            client.wait()
        for one in (*self._sentinels, *self._servers):
            one.end()
        self._patch.undo()
        read_settings_anew()
        super().close()


def agents_of(host: Host) -> list[str]:
    """The agents that the host keeps."""
    return [f"{host.name}-{number}" for number in range(1, len(ABILITIES) + 1)]


@contextmanager
def divided() -> Iterator[Divided]:
    """Both hosts, with a fleet that is ready."""
    fleet = Divided()
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.close()


class Report(NamedTuple):
    """What a run of cuts left."""

    cuts: list[Cut]
    verdict: Verdict
    table: str
    details: str


def rounds(count: int, tasks: int, seed: int) -> Report:
    """So many cuts while tasks flow on both sides; what became of the tasks."""
    choose, cuts = random.Random(seed), list[Cut]()
    seconds = count * (CUT_SECONDS + BETWEEN_SECONDS)
    with divided() as fleet:
        everyone = tuple(agent for host in fleet.hosts for agent in agents_of(host))
        for first, host in ((1, fleet.west), (EAST_BEGINS, fleet.east)):
            fleet.hand_in(host, Order(tasks // 2, seconds, seed + first, everyone, first, LONGEST))
        for _ in range(count):
            time.sleep(choose.uniform(2, 4))
            cuts.append(fleet.cut())
            fleet.change_back()
        codes = fleet.all_handed_in()
        fleet.settle()
        strikes = [cut.strike for cut in cuts]
        verdict, records = fleet.verdict(strikes)
        verdict.orphans += [f"a client ended with code {code}" for code in codes if code]
        details = [f"━━ {task}: {'; '.join(wrong)}\n{fleet.history(task)}" for task, wrong in verdict.findings.items()]
        return Report(cuts, verdict, table(strikes, records, verdict), "\n".join([*verdict.orphans, *details]))


@click.command(help=__doc__)
@click.option("--rounds", "count", type=int, default=3, show_default=True)
@click.option("--tasks", type=int, default=300, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
def main(count: int, tasks: int, seed: int) -> None:
    """Print what happened."""
    if reason := why_not():
        raise click.ClickException(reason)
    report = rounds(count, tasks, seed)
    click.echo(report.details)
    click.echo("\n".join(map(str, report.cuts)))
    click.echo(report.table)
    raise SystemExit(not report.verdict.good)


if __name__ == "__main__":
    main()

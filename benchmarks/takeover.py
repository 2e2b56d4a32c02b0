"""A machine is lost while it works: how soon its task runs elsewhere, at the pace that the settings have by default."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from statistics import median

import hosts
import psutil
from hosts import Host, Network
from machine import COMMANDS_PACE
from nodes import PACE

from benchmarks.harness import READY_SECONDS, Stage, await_true
from benchmarks.measures import Measure
from torch_tasks.settings import Settings

GOAL_SECONDS = 15
HOSTS = ("a", "b")


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Two machines on a wire of their own, whose broker is on a third; each time the one that works is lost."""
    if reason := hosts.why_not():
        return [Measure("node loss → its task runs elsewhere", None, "s", goal=GOAL_SECONDS, note=reason)]
    return [measure for how, took in losses(1 if quick else 5).items() for measure in _shown(how, took)]


def losses(times: int) -> dict[str, list[float]]:
    """For each way in which a machine is lost, the seconds until its task ran elsewhere, so many times."""
    network = Network()
    try:
        fleet = [network.host(name, **_defaults()) for name in HOSTS]
        for host in fleet:
            _up(host)
        ways = {"kill -9 of all on it": _killed, "cut off from the wire": Host.cut_off}
        return {how: _lost(how, network, fleet, loss, times) for how, loss in ways.items()}
    finally:
        network.close()


def _defaults() -> dict[str, str]:
    """What the tests' own pace is not to change; their tasks write beside their agents' folders, so no box."""
    fields = Settings.model_fields
    names = [name for name in {**PACE, **COMMANDS_PACE} if name not in ("TORCH_FLOWER_PORT", "TORCH_SANDBOX")]
    return {name: str(fields[name.removeprefix("TORCH_").lower()].default) for name in names}


def _up(host: Host) -> None:
    host.up(f"developer-{host.name}:developer")


def _lost(
    how: str, network: Network, fleet: list[Host], loss: Callable[[Host], AbstractContextManager[None]], times: int
) -> list[float]:
    return [_taken_over(network, fleet, loss, f"{how} {number}".replace(" ", "-")) for number in range(times)]


def _shown(how: str, took: list[float]) -> Iterator[Measure]:
    yield Measure(f"{how} → its task runs elsewhere, median of {len(took)}", median(took), "s", goal=GOAL_SECONDS)
    yield Measure("the same, at most", max(took), "s", goal=GOAL_SECONDS)


def _taken_over(
    network: Network, fleet: list[Host], loss: Callable[[Host], AbstractContextManager[None]], name: str
) -> float:
    """Seconds from the loss of the machine that works to the second beginning of its task."""
    begun, desk = network.broker_host.folder / name, fleet[0]
    script = f"echo $TORCH_AGENT_ID >> {begun}; sleep 1000"
    task_id = desk.torch("run", script, "--role", "developer").stdout.strip()
    await_true(lambda: len(_lines(begun)) == 1, READY_SECONDS, "the task runs")
    [lost] = [host for host in fleet if _lines(begun) == [f"developer-{host.name}"]]
    [other] = [host for host in fleet if host is not lost]
    time.sleep(Settings.model_fields["heartbeat_seconds"].default)  # all of it is known by then
    with loss(lost):
        struck = time.monotonic()
        await_true(lambda: len(_lines(begun)) == 2, READY_SECONDS, "the task runs elsewhere")
        took = time.monotonic() - struck
    other.torch("cancel", task_id)
    await_true(lambda: "cancelled" in other.torch("task", task_id).stdout, READY_SECONDS, "the task is cancelled")
    return took


@contextmanager
def _killed(host: Host) -> Iterator[None]:
    """As if its power were cut; then it starts anew."""
    for process in host.survivors():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    try:
        yield
    finally:
        _up(host)


def _lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []

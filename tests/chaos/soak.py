"""A soak: a real stack at its own pace, with a fault every minute or so, watched by Prometheus; then its report.

``make soak MINUTES=30``. It wants namespaces of its own, for a small disk that it fills; where there are none, no
disk is filled. Claude Code takes part, with a fake model, if ``.ci/real-agents`` has installed it.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import httpx2
import psutil
from clients import read_settings_anew
from machine import COMMANDS_PACE, Machine
from prometheus import MONITORING, Prometheus, free_port, prometheus
from real_agents.installed import AGENTS, PATH
from waiting import until

from torch_tasks import Torch
from torch_tasks.client import Task
from torch_tasks.errors import TorchError
from torch_tasks.facades.messages import NovaOrchestrator
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.fake_model.steps import Delay, Text, Tokens
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.certify.homes import HOMES
from torch_tasks.workers.tmux.server import AgentServer

SHELLS = {"dev-1": "developer", "dev-2": "developer", "qa-1": "qa"}
WRITER = "writer-1"
DISK = "256m"
FULL_SECONDS = 75.0
"""Longer than the alert waits."""
BACK_SECONDS = 180.0
PACE_SECONDS = 6.0
FAULTS_EVERY = 70.0
SCRAPE = "5s"


@dataclass
class Recovered:
    """A fault, and how long it took until what it had struck did its job again."""

    fault: str
    at: float
    seconds: float


class Soak:
    """The stack, who gives it work, and who strikes it."""

    def __init__(self, machine: Machine, home: Home | None, *, has_small_disk: bool) -> None:
        self.machine = machine
        self.home = home
        self.has_small_disk = has_small_disk
        self.torch = Torch()
        self.given: dict[str, Task] = {}
        self.recovered: list[Recovered] = []
        self.messages = 0
        self.not_accepted = 0
        self._ended = threading.Event()

    @property
    def agents(self) -> list[str]:
        return [*SHELLS, *([WRITER] if self.home else [])]

    # ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def working(self) -> Iterator[None]:
        """Give it tasks and messages meanwhile."""
        giver = threading.Thread(target=self._give)
        giver.start()
        try:
            yield
        finally:
            self._ended.set()
            giver.join()

    def _give(self) -> None:
        for number in itertools.count():
            if self._ended.wait(PACE_SECONDS):
                return
            with suppress(TorchError):
                if number % 2:
                    NovaOrchestrator("operator").send_message(list(SHELLS)[number % 3], f"echo message {number}")
                    self.messages += 1
            try:
                self._enqueue(number)
            except TorchError as error:
                self.not_accepted += 1
                print(f"{_clock()} not accepted: {error}", flush=True)

    def _enqueue(self, number: int) -> None:
        if self.home and number % 10 == 9:
            task = self.torch.enqueue(f"write chapter {number}", role="writer", spool=True, title=f"chapter {number}")
        else:
            role, seconds = ("developer", "developer", "qa")[number % 3], 1 + number % 4
            check = "true" if number % 5 == 0 else None
            look = "torch-tasks summary --since 1m >/dev/null; " if number % 20 == 2 else ""
            task = self.torch.enqueue(f"{look}sleep {seconds}; echo done {number}", role=role, check=check, spool=True)
        self.given[task.id] = task

    def settle(self) -> dict[str, int]:
        """Wait for all that was accepted; how many of it ended how."""
        ends: dict[str, int] = {}
        deadline = time.monotonic() + BACK_SECONDS
        for task in self.given.values():
            with suppress(TorchError, TimeoutError):
                task.result(max(1.0, deadline - time.monotonic()))
            state = str(task.record().state)
            ends[state] = ends.get(state, 0) + 1
        return ends

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────

    def faults(self) -> Mapping[str, Callable[[], None]]:
        """Each strikes, and returns when all is well again."""
        agents = itertools.cycle(self.agents)
        found: dict[str, Callable[[], None]] = {
            "agent worker": lambda: self._agent(next(agents), self._worker),
            "broker": self._broker,
            "terminal": lambda: self._agent(next(agents), self._terminal),
            "node worker": lambda: self._service("node", self.machine.state / "metrics.json"),
            "beat": lambda: self._service("beat", self.machine.state / "beat.json"),
            "agent worker and terminal": lambda: self._agent(next(agents), self._worker, self._terminal),
            "server": lambda: self._service("server", self.machine.state / "server.json"),
        }
        return {**found, "full disk": self._disk} if self.has_small_disk else found

    def strike(self, minutes: float) -> None:
        """One fault after the other, in turn, until the time is over."""
        end = time.monotonic() + minutes * 60
        for name, fault in itertools.cycle(self.faults().items()):
            time.sleep(FAULTS_EVERY * 0.6)
            if time.monotonic() > end:
                return
            at, begun = time.time(), time.monotonic()
            try:
                fault()
            except AssertionError as error:  # the rest of the time is worth as much
                print(f"{_clock()} {name}: {error}", flush=True)
            took = time.monotonic() - begun - (FULL_SECONDS if name == "full disk" else 0)
            self.recovered.append(Recovered(name, at, took))
            print(f"{_clock()} {name}: well again after {took:.1f} s", flush=True)
            time.sleep(FAULTS_EVERY * 0.4)

    def _agent(self, agent: str, *victims: Callable[[str], psutil.Process | None]) -> None:
        for victim in victims:
            _kill(victim(agent))
        words = "say that you are back" if agent == WRITER else "echo back"
        self._does(lambda: self.torch.enqueue(words, agent=agent, spool=True))

    def _worker(self, agent: str) -> psutil.Process | None:
        return self.machine.process(f"agent-{agent}")

    def _terminal(self, agent: str) -> psutil.Process | None:
        return AgentServer(self.machine.state / "agents" / agent / "tmux").listener()

    def _broker(self) -> None:
        _kill(self.machine.process("broker"))
        self._does(lambda: self.torch.enqueue("echo back", role="developer"))

    def _service(self, name: str, address: Path) -> None:
        former = self.machine.living(name).pid
        _kill(self.machine.process(name))

        def is_back() -> bool:
            with suppress(OSError, ValueError, httpx2.TransportError):
                known = json.loads(address.read_text())
                return known["pid"] != former and _ready(known["url"])
            return False

        until(is_back, f"{name} is back", BACK_SECONDS)

    def _disk(self) -> None:
        filler = self.machine.state / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"x" * (1 << 16))
                file.flush()
        time.sleep(FULL_SECONDS)
        filler.unlink()
        self._does(lambda: self.torch.enqueue("echo back", role="developer"))

    def _does(self, give: Callable[[], Task]) -> None:
        """It takes a task, and has it done."""

        def accepted() -> Task | None:
            with suppress(TorchError):
                return give()
            return None

        task = until(accepted, "a task is accepted", BACK_SECONDS)
        self.given[task.id] = task
        deadline = time.monotonic() + BACK_SECONDS
        while time.monotonic() < deadline:
            with suppress(TorchError):
                assert task.result(BACK_SECONDS).succeeded
                return
            time.sleep(0.2)
        raise AssertionError(f"task {task.id} is not done")


def _kill(process: psutil.Process | None) -> None:
    if process:
        process.send_signal(signal.SIGKILL)


def _ready(url: str) -> bool:
    return httpx2.get(f"{url}/readyz", trust_env=False, timeout=5).status_code == 200


def _clock() -> str:
    return time.strftime("%H:%M:%S")


# ── what was seen ────────────────────────────────────────────────────────────────────────────────────────────────────


def firings(seen: Prometheus, seconds: float) -> list[str]:
    """Each alert that fired, from when until when."""
    end = time.time()
    found = seen.over('ALERTS{alertstate="firing"}', end - seconds, end, 5)
    lines = []
    for series in found:
        name, times = series["metric"]["alertname"], [at for at, _ in series["values"]]
        for begun, ended in _stretches(times):
            clocks = (time.strftime("%H:%M:%S", time.localtime(at)) for at in (begun, ended))
            lines.append(f"{' … '.join(clocks)}  {name}")
    return sorted(lines)


def _stretches(times: list[float]) -> Iterator[tuple[float, float]]:
    begun = last = times[0]
    for at in times[1:]:
        if at - last > 10:
            yield begun, last
            begun = at
        last = at
    yield begun, last


def unseen(seen: Prometheus) -> Iterator[str]:
    """The queries of dashboards that find nothing here."""
    for file in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m")
                result = seen.query(query)
                print(f"{file.stem}: {panel['title']}: {len(result)} lines, {[one['value'][1] for one in result][:4]}")
                if not result:
                    yield f"{file.stem}: {panel['title']}: {query}"


def summary(soak: Soak, ends: Mapping[str, int]) -> str:
    by_fault: dict[str, list[float]] = {}
    for one in soak.recovered:
        by_fault.setdefault(one.fault, []).append(one.seconds)
    rows = [
        f"{fault:28} {len(took):3} times   median {median(took):5.1f} s   longest {max(took):5.1f} s"
        for fault, took in by_fault.items()
    ]
    work = f"{len(soak.given)} tasks accepted, {soak.not_accepted} not; {ends}; {soak.messages} messages"
    return "\n".join([*rows, work])


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.command(help=__doc__)
@click.option("--minutes", type=float, default=30.0, show_default=True)
@click.option("--disk/--no-disk", default=True, help="Fill the disk, too.")
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, help="A folder for the report.")
def main(minutes: float, disk: bool, folder: Path) -> None:
    """Up, work and faults, report, down."""
    _enter_namespaces()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    with ExitStack() as stack:
        machine = Machine()
        stack.callback(machine.close)
        has_small_disk = disk and stack.enter_context(small_disk(machine.state))
        home = stack.enter_context(claude(machine.folder))
        settle_environment(machine, home)
        agents = [f"{agent}:{role}" for agent, role in SHELLS.items()]
        if home:
            agents.append(f"{WRITER}:writer::claude")
        stack.callback(machine.torch, "down", code=None, seconds=180)
        up = [word for agent in agents for word in ("--agent", agent)]
        print(machine.torch("up", "--detach", "--no-flower", *up, seconds=300).stdout, flush=True)
        machine.torch("checkin", "add", "--every", "2m", "echo checked in", "qa-1")
        soak = Soak(machine, home, has_small_disk=has_small_disk)
        seen = stack.enter_context(prometheus(folder, (MONITORING / "alerts.yml").read_text(), scrapes(soak), SCRAPE))
        with soak.working():
            soak.strike(minutes)
        ends = soak.settle()
        time.sleep(30)  # the node worker looks, and Prometheus
        for form in ("html", "json", "markdown"):
            (folder / f"report.{form}").write_text(machine.torch("report", f"--{form}").stdout)
        print(machine.torch("report", code=None).stdout)
        print("without data:", *unseen(seen), sep="\n")
        told = "\n".join([summary(soak, ends), *firings(seen, time.time() - begun)])
        (folder / "summary.txt").write_text(told + "\n")
        print(told, flush=True)


def scrapes(soak: Soak) -> dict[str, dict[str, Any]]:
    token = soak.machine.folder / "token"
    created = soak.machine.torch("token", "create", "--name", "prometheus", "--role", "viewer")
    token.write_text(created.stdout.strip())
    own = {"node": "METRICS", "server": "SERVER"}
    ports = {name: soak.machine.env[f"TORCH_{part}_PORT"] for name, part in own.items()}
    return {
        "torch-nodes": {"static_configs": [{"targets": [f"127.0.0.1:{ports['node']}"]}]},
        "torch-server": {
            "authorization": {"credentials_file": str(token)},
            "static_configs": [{"targets": [f"127.0.0.1:{ports['server']}"]}],
        },
    }


def settle_environment(machine: Machine, home: Home | None) -> None:
    """The pace that a fleet has by itself; and this process is its person."""
    for name in COMMANDS_PACE:
        machine.env.pop(name, None)
    machine.env |= {
        "TORCH_SANDBOX": "never",
        "TORCH_SIGNING": "enforce",
        "TORCH_BUDGETS": json.dumps({"claude": {"usd_per_day": 40}}),
    }
    machine.env |= {"TORCH_METRICS_PORT": str(free_port())}
    machine.env |= {"TORCH_SERVER_PORT": str(free_port()), "TORCH_METRICS_BEAT_PORT": str(free_port())}
    if home:
        machine.env |= home.environment
        machine.work = home.work
    os.environ.update({name: value for name, value in machine.env.items() if name.startswith("TORCH_")})
    read_settings_anew()


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of its own for the state folder, if this process may have one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "none", str(folder)]
    mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


@contextmanager
def claude(folder: Path) -> Iterator[Home | None]:
    """The home of Claude Code with a fake model, if it is installed."""
    if not (AGENTS / "bin" / "claude").exists():
        yield None
        return
    with FakeLLM(folder / "model") as llm:
        llm.on("", Tokens(12_000, 900), Delay(4), Text("It is written."))
        home = HOMES["claude"](folder / "home", llm, WRITER, PATH)
        try:
            yield home
        finally:
            home.clear()


def _enter_namespaces() -> None:
    """Begin again with no network but loopback and with mounts of its own, if that is allowed."""
    if "TORCH_SOAK_INSIDE" in os.environ:
        return
    os.environ["TORCH_SOAK_INSIDE"] = "1"
    for words in (["unshare", "--mount", "--"], ["unshare", "--map-root-user", "--mount", "--"]):
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            os.execvp("unshare", [*words, sys.executable, "-m", "chaos.soak", *sys.argv[1:]])


if __name__ == "__main__":
    main()

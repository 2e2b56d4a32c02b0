"""The fleet that is struck: broker, node worker, six agents, beat and a client, each a process of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import redis
from appended import whole_lines
from clients import read_settings_anew
from machine import Machine
from replicas import Pair
from waiting import until

from chaos.broker import Broker
from chaos.client import Order
from torch_tasks.machine import commands
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.task import TaskRecord
from torch_tasks.settings import Settings
from torch_tasks.store.agents import AgentRecords
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.system.processes import Processes
from torch_tasks.workers.tmux.server import AgentServer

AGENTS = ("agent-1", "agent-2", "agent-3", "agent-4", "agent-5", "agent-6")
TESTS = Path(__file__).parents[1]
READY_SECONDS = 120.0
DOWN_SECONDS = 90.0
QUICK = {
    "TORCH_HEARTBEAT_SECONDS": "0.5",
    "TORCH_OFFLINE_SECONDS": "4",
    "TORCH_LEASE_SECONDS": "3",
    "TORCH_RECOVERY_SECONDS": "1.5",
    # Longer than the faults can silence an agent and its node together: a takeover is a second start by design.
    "TORCH_TAKEOVER_SECONDS": "30",
    "TORCH_HUNG_SECONDS": "8",
    "TORCH_BROKER_CONNECT_SECONDS": "2",
    "TORCH_DELIVERY_LIMIT": "100",
    "TORCH_RETRY_BACKOFF_SECONDS": "0.1",
    "TORCH_RETRY_BACKOFF_LIMIT_SECONDS": "1",
    "TORCH_RESTART_BACKOFF_SECONDS": "0.1",
    "TORCH_RESTART_BACKOFF_LIMIT_SECONDS": "0.5",
    "TORCH_QUARANTINE_CRASHES": "1000",
}
"""Quicker than a fleet's own pace, so that a minute holds many faults and their recoveries."""


def _spec(number: int, agent_id: str) -> AgentSpec:
    return AgentSpec(id=agent_id, role=("developer", "qa")[number % 2], skills=("git",) if number % 3 else ())


class Fleet(Machine):
    """All its processes by name; :meth:`revive` starts node worker and beat again when they have died."""

    def __init__(
        self,
        agents: Sequence[str] = AGENTS,
        broker: Callable[[Path, Mapping[str, str]], Broker | Pair] = Broker,
        **environment: str,
    ) -> None:
        super().__init__(**{**QUICK, "PYTHONPATH": str(TESTS), **environment})
        self.agents = tuple(agents)
        self.broker = broker(self.folder / "broker", self.env)
        self.env["TORCH_BROKER_URL"] = self.broker.url
        self.effects = self.folder / "effects"
        self.effects.mkdir()
        self.accepted_file = self.folder / "accepted"
        settings = Settings(state_dir=self.state)
        self._records = TaskRecords(self.broker.client, settings)
        self._registry = AgentRecords(self.broker.client, settings)
        self._processes = Processes(self.state / "run")
        self._not_before: dict[str, float] = {}
        self._clients: list[subprocess.Popen[bytes]] = []
        self._keys = pytest.MonkeyPatch()
        self._starters: dict[str, tuple[str, ...]] = {
            "node": commands.node([_spec(*pair) for pair in enumerate(self.agents)]),
            "beat": commands.BEAT,
        }

    def __enter__(self) -> Fleet:
        self._keys.setenv("TORCH_KEYS_DIR", str(self.state / "keys"))  # what it signed is verified here
        read_settings_anew()
        try:
            self.broker.start()
            self.revive()
            until(self.is_ready, f"all agents are ready:\n{self.tails()}", READY_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────

    def is_ready(self) -> bool:
        """Every agent is online with a pane."""
        infos = self._registry.agents()
        return {info.agent_id for info in infos if info.online and info.pane} == set(self.agents)

    def revive(self) -> None:
        """Start what has died, as a service manager does."""
        for name, command in self._starters.items():
            if time.monotonic() >= self._not_before.get(name, 0) and not self._processes.find(name):
                log = self.state / "logs" / f"{name}.log"
                self._processes.start(name, commands.runnable(command), log=log, env=self.env, cwd=self.work)

    def keep(self, name: str, command: tuple[str, ...]) -> None:
        """Have another process run from now on."""
        self._starters[name] = command
        self.revive()

    def keep_away(self, name: str, seconds: float) -> None:
        """Do not start this one again before so many seconds have passed."""
        self._not_before[name] = time.monotonic() + seconds

    def worker(self, agent: str) -> psutil.Process | None:
        """The agent's worker."""
        return self.process(f"agent-{agent}")

    def terminal(self, agent: str) -> psutil.Process | None:
        """The agent's tmux server."""
        return AgentServer(self.socket(agent)).listener()

    def keeper(self, agent: str) -> psutil.Process | None:
        """The process in the agent's pane, which keeps its shell."""
        with suppress(psutil.NoSuchProcess):
            children = server.children() if (server := self.terminal(agent)) else []
            return next((child for child in children if any("keeper.bash" in word for word in child.cmdline())), None)
        return None

    def shell(self, agent: str) -> psutil.Process | None:
        """The shell that runs the agent's tasks."""
        with suppress(psutil.NoSuchProcess):
            keeper = self.keeper(agent)
            return next(iter(keeper.children()), None) if keeper else None
        return None

    def socket(self, agent: str) -> Path:
        """Where the agent's tmux server listens."""
        return self.state / "agents" / agent / "tmux"

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def hand_in(self, order: Order) -> subprocess.Popen[bytes]:
        """Start a client that hands these tasks in."""
        argv = [sys.executable, "-m", "chaos.client", str(self.folder), json.dumps(asdict(order))]
        with (self.folder / "client.log").open("ab") as log:
            client = subprocess.Popen(
                argv, cwd=self.work, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._clients.append(client)
        return client

    def accepted(self) -> dict[str, float]:
        """The tasks whose enqueuing returned, and when."""
        lines = [line.split() for line in whole_lines(self.accepted_file)]
        return {task: float(at) for task, at in lines}

    def records(self, tasks: Sequence[str]) -> dict[str, TaskRecord | None]:
        """The records of these tasks."""
        return {task: self._records.find(task) for task in tasks}

    def ended(self, tasks: Sequence[str]) -> int:
        """How many of these have a record that says they ended; none while the broker is away."""
        with suppress(redis.RedisError):
            return sum(state is not None and state.ended for state in map(self._records.state, tasks))
        return 0

    def history(self, task: str) -> list[str]:
        """The task's history, as JSON."""
        return [entry.model_dump_json(exclude_none=True) for entry in self._records.history(task)]

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def heal(self) -> None:
        """Resume what is stopped, and start what has ended."""
        for process in self.survivors():
            with suppress(psutil.Error):
                if process.status() == psutil.STATUS_STOPPED:
                    process.resume()
        if not self.broker.process:
            self.broker.start()
        self._not_before.clear()
        self.revive()

    def surplus(self) -> list[str]:
        """Workers and terminals that are there more than once, and what belongs to no agent."""
        ours = self.survivors()
        workers = Counter(words[words.index("--id") + 1] for words in map(_words, ours) if "--id" in words)
        servers = Counter(words[words.index("-S") + 1] for words in map(_words, ours) if _is_server(words))
        wanted = {str(self.socket(agent)) for agent in self.agents}
        return [
            *(f"{count} workers of {agent}" for agent, count in workers.items() if count > 1),
            *(f"{count} tmux servers at {path}" for path, count in servers.items() if count > 1 or path not in wanted),
        ]

    def down(self) -> list[str]:
        """End the fleet as its user does; returns what is left of it: processes and sockets."""
        for client in self._clients:
            client.kill()
            client.wait()
        self.torch("down", seconds=DOWN_SECONDS)
        settled = time.monotonic() + 5
        while (left := self._left()) and time.monotonic() < settled:
            time.sleep(0.1)
        return left

    def _left(self) -> list[str]:
        processes = [process for process in self.survivors() if process not in self.broker.processes]
        sockets = [path for path in self.folder.rglob("tmux") if path.is_socket()]
        return [*(f"process {process.pid}: {' '.join(_words(process))}" for process in processes), *map(str, sockets)]

    def close(self) -> None:
        """End everything at once, whatever state it is in."""
        for client in self._clients:
            client.kill()
            client.wait()
        self.broker.end()
        self._keys.undo()
        read_settings_anew()
        super().close()

    # ── what was said ────────────────────────────────────────────────────────────────────────────────────────────

    def logs(self) -> list[Path]:
        """Every log file."""
        mine = [self.folder / "client.log", self.broker.log]
        return [log for log in [*mine, *sorted((self.state / "logs").glob("*.log"))] if log.exists()]

    def mentions(self, task: str) -> str:
        """Every logged line that names the task."""
        found = [f"{log.name}: {line}" for log in self.logs() for line in _lines(log) if task in line]
        return "\n".join(found[:60])

    def tails(self, lines: int = 15) -> str:
        """The end of every log."""
        return "\n".join(f"── {log.name}\n" + "\n".join(_lines(log)[-lines:]) for log in self.logs())


def _lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is_server(words: Sequence[str]) -> bool:
    """A tmux server keeps the arguments of the client that started it."""
    return bool(words) and Path(words[0]).name.startswith("tmux") and "-S" in words and "new-session" in words

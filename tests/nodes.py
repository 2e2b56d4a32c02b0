"""The fleet under test as real processes, in the place of the containers that pytest-celery expects."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import forked
import psutil
import pytest
import redis
from broker_data import BrokerData, without_dragonfly
from machine import SANDBOX, short_folder, survivors
from pytest_celery import CeleryTestContainer
from waiting import until

from torch_tasks import Torch
from torch_tasks.errors import AgentNotFound
from torch_tasks.machine.broker import administrators_address, start_broker, stop_broker
from torch_tasks.machine.commands import runnable
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.node import KeptAgent, NodeInfo
from torch_tasks.settings import Settings
from torch_tasks.system.processes import Processes
from torch_tasks.transport import Gate
from torch_tasks.workers.tmux.server import AgentServer

SESSION = "PYTEST_TORCH_SESSION"
"""The variable that marks every process of the tests, and what those start, with their session."""
MARK = uuid.uuid4().hex
END_SECONDS = 10.0
START_SECONDS = 180.0
"""A real coding agent may take long to start on a busy machine."""
PACE = {
    "TORCH_SANDBOX": SANDBOX,
    "TORCH_HEARTBEAT_SECONDS": "0.5",
    "TORCH_OFFLINE_SECONDS": "4",
    "TORCH_INTERRUPT_SECONDS": "1",
    "TORCH_RETRY_BACKOFF_SECONDS": "0.1",
    "TORCH_LEASE_SECONDS": "3",
    "TORCH_RECOVERY_SECONDS": "1",
    "TORCH_TAKEOVER_SECONDS": "5",
    "TORCH_HANDOFF_SECONDS": "1",
}
"""Quicker than a fleet's own pace, and slow enough for a busy machine."""


class ShowsLogs(ABC):
    """A part of a test whose logs the report of a failed test shows."""

    @abstractmethod
    def logs(self) -> Iterable[tuple[str, str]]:
        """The name of each process, and what it said."""


def end_tmux(socket: Path) -> None:
    """End the tmux server at this socket, if there is one, with all that runs in it.

    A server that was writing to a control client when that client's program was killed waits for it for ever.
    """
    server = AgentServer(socket).listener()
    argv = ["tmux", "-S", str(socket), "kill-server"]
    subprocess.run(argv, capture_output=True, check=False, timeout=END_SECONDS)
    if server and psutil.wait_procs([server], timeout=2)[1]:
        server.kill()


class ProcessNode(CeleryTestContainer):
    """A process in the place of a container."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        # Without super().__init__(), which wants a container.
        self._name = name
        self._argv = list(argv)
        self._env = dict(env)
        self._log = log
        self.start()

    def start(self) -> None:
        """Start the process; its output goes to the end of its log."""
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self.process = forked.start(self._argv, self._env, log)

    @property
    def name(self) -> str:
        return self._name

    @property
    def id(self) -> str:
        return self._name

    @property
    def status(self) -> str:
        return "running" if self.process.poll() is None else "exited"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {}

    def logs(self) -> str:
        """What the process said since it was last started."""
        return self._log.read_bytes()[self._log_start :].decode(errors="replace")

    def ready(self) -> bool:
        return self.status == "running"

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send the signal, and wait until the process has ended."""
        self.process.send_signal(_signal(signal))
        self.process.wait(END_SECONDS)

    def reload(self) -> None:
        """Nothing: the status is always the process's own."""

    def restart(self, timeout: int = 10) -> None:
        if self.status == "running":
            self.kill("SIGTERM")
        self.start()
        self.ready()

    def teardown(self) -> None:
        if self.status == "running":
            self.kill()


def _signal(name: str | int) -> signal.Signals:
    return signal.Signals[name] if isinstance(name, str) else signal.Signals(name)


class Broker(CeleryTestContainer):
    """The broker under test: the one at ``TORCH_TEST_BROKER_URL``, else one of this machine's own."""

    def __init__(self, *, keeps_every_write: bool = False) -> None:
        """A broker that ``keeps_every_write`` loses none when it is killed, which DragonflyDB does."""
        # Without super().__init__(), which wants a container.
        self._keeps_every_write = keeps_every_write
        self._folder = short_folder()
        self.settings = Settings(state_dir=self._folder, broker_url=os.environ.get("TORCH_TEST_BROKER_URL"))
        self.data = BrokerData(self.settings.state.broker)
        self.url: Any = None
        self.start()

    def start(self) -> None:
        """Start it with the data that it has, and wait until it answers."""
        own = self.settings.broker_url is None
        with ExitStack() as around:
            if self._keeps_every_write:
                around.enter_context(without_dragonfly())
            # It outlives the machine of a test, which takes for its own what names it in its environment.
            around.enter_context(pytest.MonkeyPatch.context()).setenv("TORCH_STATE_DIR", str(self._folder))
            if own:
                start_broker(self.settings)
            address = administrators_address(self.settings) if own else self.settings.broker()
        url = address.url.get_secret_value()
        if self.url is None:
            self.url, self.celery_url = url, address.celery_url
        elif url != self.url:  # its password is new, and processes and clients of the test know the first one
            first = urlsplit(self.url)
            with redis.Redis.from_url(url, protocol=2) as admin:
                admin.execute_command("ACL", "SETUSER", str(first.username), f">{first.password}")
        self.client = redis.Redis.from_url(self.url, decode_responses=True, protocol=2)

    def process(self) -> psutil.Process:
        """The broker's process, which must run on this machine."""
        running = Processes(self.settings.state.run).find("broker")
        process = running.process() if running else None
        assert process, "the broker does not run"
        return process

    def stop(self) -> None:
        """Stop it; its data stays."""
        self.client.close()
        stop_broker(self.settings, END_SECONDS)

    def empty(self) -> None:
        """Drop all data and open its gate, as if it were new."""
        self.client.flushall()
        Gate(self.client).open_new()

    @property
    def name(self) -> str:
        return "broker"

    @property
    def id(self) -> str:
        return "broker"

    @property
    def status(self) -> str:
        return "running"

    @property
    def client(self) -> redis.Redis:
        return self._client

    @client.setter
    def client(self, client: redis.Redis) -> None:
        self._client = client

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {"url": self.celery_url, "host_url": self.celery_url}

    def logs(self) -> str:
        return (self.settings.state.logs / "broker.log").read_text()

    def ready(self) -> bool:
        return bool(self.client.ping())

    def teardown(self) -> None:
        """Nothing: it serves all tests of the session, and :meth:`close` ends it."""

    def close(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        shutil.rmtree(self._folder)


class AgentWorker(ProcessNode):
    """One agent's worker, its pane and its terminal."""

    def __init__(self, agent_id: str, argv: Sequence[str], env: Mapping[str, str], log: Path, torch: Torch) -> None:
        self._torch = torch
        self.agent_id = agent_id
        self.folder = Path(env["TORCH_STATE_DIR"]) / "agents" / agent_id
        super().__init__(agent_id, argv, env, log)

    def ready(self) -> bool:
        """Wait until the worker takes tasks."""
        until(self._serves, f"{self.agent_id} is ready", START_SECONDS)
        return True

    def _serves(self) -> bool:
        assert self.status == "running", f"the worker of {self.agent_id} has ended:\n{self.logs()}"
        if f"{self.agent_id}@" not in self.logs() or " ready." not in self.logs():
            return False
        info = self.info
        return info is not None and info.online and info.pid == self.process.pid and info.pane is not None

    @property
    def info(self) -> AgentInfo | None:
        """The agent as the registry has it."""
        try:
            return self._torch.agent(self.agent_id)
        except AgentNotFound:
            return None

    @property
    def agent_state(self) -> AgentState | None:
        """The agent's state as the registry has it."""
        return self.info.state if self.info else None

    def tmux(self, *words: str) -> str:
        """tmux's answer to a command for the agent."""
        argv = ["tmux", "-S", str(self.folder / "tmux"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=END_SECONDS).stdout.strip()

    def screen(self) -> str:
        """The pane's screen with its history."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-1000")

    def pane(self) -> tuple[str, int]:
        """The pane's id, and the process in it."""
        pane_id, pid = self.tmux("display-message", "-p", "#{pane_id} #{pane_pid}").split()
        return pane_id, int(pid)

    def has_pane(self) -> bool:
        """Whether the agent's tmux server answers."""
        argv = ["tmux", "-S", str(self.folder / "tmux"), "has-session"]
        return subprocess.run(argv, capture_output=True, check=False, timeout=END_SECONDS).returncode == 0

    def end_terminal(self) -> None:
        """End the agent's tmux server with all that runs in it, if there is one."""
        end_tmux(self.folder / "tmux")


def person_at(worker: AgentWorker, broker: Broker) -> dict[str, str]:
    """The environment of a person at the agent's machine."""
    own = {"TORCH_STATE_DIR": str(worker.folder.parents[1]), "TORCH_BROKER_URL": broker.url, "TORCH_NODE": "node-a"}
    return {**os.environ, **own}


class NodeWorker(ProcessNode):
    """One machine's node worker; the agents that it keeps are processes of their own."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, torch: Torch) -> None:
        self._torch = torch
        super().__init__(name, argv, env, log)

    def ready(self) -> bool:
        """Wait until it takes orders."""
        until(self._serves, f"the node worker of {self.name} is ready", START_SECONDS)
        return True

    def _serves(self) -> bool:
        assert self.status == "running", f"the node worker of {self.name} has ended:\n{self.logs()}"
        info = self.info
        return f"node@{self.name} ready." in self.logs() and info is not None and info.pid == self.process.pid

    @property
    def info(self) -> NodeInfo | None:
        """The node as the registry has it."""
        return next((info for info in self._torch.nodes() if info.name == self.name), None)

    def kept(self, agent_id: str) -> KeptAgent | None:
        """The agent as the node worker reports it."""
        agents = self.info.agents if self.info else ()
        return next((agent for agent in agents if agent.agent_id == agent_id), None)


class Node(ShowsLogs):
    """One machine of the fleet: a state folder, and the agent workers there."""

    def __init__(self, name: str, broker: Broker, torch: Torch) -> None:
        self.name = name
        self.folder = short_folder()
        self.work = self.folder / "work"
        self.work.mkdir()
        self.state = self.folder / "state"
        self.workers: list[AgentWorker] = []
        self.node_workers: list[NodeWorker] = []
        self.processes = Processes(self.state / "run")
        self._torch = torch
        self._env = {
            **os.environ,
            **PACE,
            SESSION: MARK,
            "TORCH_PANE_ENVIRONMENT": json.dumps([SESSION]),
            "TORCH_BROKER_URL": broker.url,
            "TORCH_STATE_DIR": str(self.state),
            "TORCH_NODE": name,
        }

    def agent_worker(
        self,
        agent_id: str,
        role: str = "developer",
        skills: Sequence[str] = (),
        *,
        kind: str = "shell",
        workdir: Path | None = None,
        words: Sequence[str] = (),
        is_awaited: bool = True,
        **environment: str,
    ) -> AgentWorker:
        """Start an agent worker, with these further words, and wait until it takes tasks if ``is_awaited``."""
        log = self.folder / f"{agent_id}.{len(self.workers)}.log"
        argv = [*self._argv(agent_id, role, skills, kind, workdir), *words]
        worker = AgentWorker(agent_id, argv, {**self._env, **environment}, log, self._torch)
        self.workers.append(worker)
        if is_awaited:
            worker.ready()
        return worker

    def node_worker(self, *keep: str, **environment: str) -> NodeWorker:
        """Start a node worker that keeps these agents and the spawned ones, and wait until it is ready."""
        log = self.folder / f"node.{len(self.node_workers)}.log"
        argv = [sys.executable, "-m", "torch_tasks.cli", "node", *(word for one in keep for word in ("--agent", one))]
        env = {**self._env, "TORCH_AGENTS": "[]", "TORCH_RESTART_BACKOFF_SECONDS": "0.1", **environment}
        worker = NodeWorker(self.name, argv, env, log, self._torch)
        self.node_workers.append(worker)
        worker.ready()
        return worker

    def said_last(self) -> str:
        """The log of the latest node worker."""
        return self.node_workers[-1].logs()

    def kept_worker(self, agent_id: str) -> psutil.Process | None:
        """The process of an agent worker that the node worker keeps."""
        running = self.processes.find(f"agent-{agent_id}")
        return running.process() if running else None

    def pane_of(self, agent_id: str) -> int | None:
        """The process in the pane of an agent, if it has one."""
        argv = ["tmux", "-S", str(self.state / "agents" / agent_id / "tmux"), "display-message", "-p", "#{pane_pid}"]
        said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=END_SECONDS).stdout.strip()
        return int(said) if said else None

    def refused(self, agent_id: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run an agent worker that cannot start, to its end."""
        argv = self._argv(agent_id, "developer")
        return forked.run(argv, {**self._env, **environment})

    def _argv(
        self, agent_id: str, role: str, skills: Sequence[str] = (), kind: str = "shell", workdir: Path | None = None
    ) -> list[str]:
        argv = runnable(("torch-tasks", "worker"))
        argv += ["--id", agent_id, "--role", role, "--kind", kind, "--workdir", str(workdir or self.work)]
        return argv + [word for skill in skills for word in ("--skill", skill)]

    def logs(self) -> Iterator[tuple[str, str]]:
        for node_worker in self.node_workers:
            yield f"node worker of {self.name} (pid {node_worker.process.pid})", node_worker.logs()
        for log in self.state.glob("logs/agent-*.log"):
            yield log.name, log.read_text()[-4000:]
        for worker in self.workers:
            yield f"{worker.name} (pid {worker.process.pid})", worker.logs()
            transcript = worker.folder / "transcript"
            if transcript.exists():
                yield f"pane of {worker.name}", transcript.read_bytes()[-4000:].decode(errors="backslashreplace")

    def end_workers(self) -> None:
        """End every worker and every terminal."""
        for node_worker in self.node_workers:
            node_worker.teardown()
        for running in self.processes.all_running():
            self.processes.stop(running.name, END_SECONDS)
        for worker in self.workers:
            worker.teardown()
        self._end_terminals()

    def _end_terminals(self) -> None:
        for socket in self.state.glob("agents/*/tmux"):
            end_tmux(socket)

    def close(self) -> None:
        """End all that runs on the node, and fail if anything is left."""
        self.end_workers()
        deadline = time.monotonic() + END_SECONDS
        while (left := survivors(str(self.state))) and time.monotonic() < deadline:
            time.sleep(0.02)
            self._end_terminals()  # one that a worker was starting at its end may have begun to listen since
        commands = [" ".join(process.cmdline()) for process in left]
        for process in left:
            process.kill()
        shutil.rmtree(self.folder)
        assert not commands, f"left on {self.name}: {commands}"

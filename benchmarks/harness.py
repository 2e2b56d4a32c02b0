"""The stage of a benchmark: a broker, workers and a state folder of its own, all gone afterwards.

Open the stage before anything reads Torch's settings: it puts the broker and the folder into the environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from torch_tasks import Torch
from torch_tasks.machine.broker import administrators_address, start_broker, stop_broker
from torch_tasks.settings import Settings
from torch_tasks.settings import settings as settings_of_process
from torch_tasks.system.processes import Processes
from torch_tasks.workers.tmux.server import AgentServer

ROLE = "bench"
READY_SECONDS = 120.0
GRACE_SECONDS = 10.0
CELERY = (sys.executable, "-m", "celery")
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Agent:
    """An agent with its worker, and the processes that exist because of it."""

    id: str
    worker: psutil.Process
    socket: Path

    def terminal(self) -> list[psutil.Process]:
        """The control client, the tmux server, and what runs in the pane."""
        server = AgentServer(self.socket).listener()
        theirs = [server, *server.children(recursive=True)] if server else []
        return [*self.worker.children(recursive=True), *theirs]


class Stage:
    """A running broker and the means to start workers on it."""

    def __init__(self, folder: Path, broker: psutil.Process, torch: Torch) -> None:
        self.folder = folder
        self.broker = broker
        self.torch = torch

    def agents(self, count: int) -> AbstractContextManager[list[Agent]]:
        """So many shell agents, ready, each of which has done one task already."""
        return self.hosted([f"{ROLE}-{number}" for number in range(1, count + 1)])

    @contextmanager
    def hosted(self, ids: Sequence[str], kind: str = "shell", prompt: str = ":") -> Iterator[list[Agent]]:
        """These agents, ready, each of which has done this task already."""
        with ExitStack() as stack:
            started = [stack.enter_context(self.agent(agent_id, kind)) for agent_id in ids]
            for agent in started:
                self.await_ready(agent)
            for task in [self.torch.enqueue(prompt, agent=agent.id) for agent in started]:
                task.result(READY_SECONDS).raise_for_status()
            yield started
            for agent in started:
                agent.worker.terminate()  # all at once; each is waited for below

    @contextmanager
    def agent(
        self, agent_id: str, kind: str = "shell", workdir: Path | None = None, **environment: str
    ) -> Iterator[Agent]:
        """One agent, just started."""
        words = ["--id", agent_id, "--role", ROLE, "--kind", kind, "--workdir", str(workdir or self.folder)]
        socket = self.folder / "agents" / agent_id / "tmux"
        try:
            with self.worker("torch_tasks", *words, log=agent_id, **environment) as worker:
                yield Agent(agent_id, worker, socket)
        finally:
            subprocess.run(["tmux", "-S", str(socket), "kill-server"], capture_output=True, check=False)

    @contextmanager
    def worker(self, app: str, *words: str, log: str, **environment: str) -> Iterator[psutil.Process]:
        """A Celery worker of this app, with these variables besides."""
        argv = [*CELERY, "-A", app, "worker", "--loglevel", "INFO", *words]
        with (self.folder / f"{log}.log").open("wb") as output:
            process = psutil.Popen(
                argv,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            end(process)

    def _is_ready(self, agent: Agent) -> bool:
        """The registry calls the agent ready, and means this worker."""
        return any(
            info.agent_id == agent.id and info.pid == agent.worker.pid and info.state == "ready"
            for info in self.torch.agents(online=True)
        )

    def await_ready(self, agent: Agent) -> None:
        """Return when the agent is ready; an error with its last words if its worker has ended."""

        def ready() -> bool:
            if not agent.worker.is_running() or agent.worker.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError(f"{agent.id} ended:\n{(self.folder / f'{agent.id}.log').read_text()[-2000:]}")
            return self._is_ready(agent)

        await_true(ready, READY_SECONDS, f"{agent.id} is ready")


@contextmanager
def open_stage() -> Iterator[Stage]:
    """A stage, which is removed whatever happens, also at SIGTERM."""
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        for variable in [
            name for name in os.environ if name.startswith("TORCH_") and not name.startswith("TORCH_TEST_")
        ]:
            del os.environ[variable]
        os.environ["TORCH_STATE_DIR"] = name
        settings = Settings(state_dir=folder)
        stack.callback(stop_broker, settings, GRACE_SECONDS)
        start_broker(settings)
        os.environ["TORCH_BROKER_URL"] = administrators_address(settings).url.get_secret_value()
        settings_of_process.cache_clear()  # starting the broker has read them
        broker = Processes(settings.state.run).find("broker")
        assert broker is not None
        yield Stage(folder, psutil.Process(broker.pid), Torch())


def _leave(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def end(process: psutil.Process) -> None:
    """Ask, wait, kill."""
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()


def await_true(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


def clock(action: Callable[[], object]) -> float:
    """How many seconds the action takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def said(*argv: str) -> str:
    """What the command prints."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """The CPU time that these have used since they began, to the nanosecond; all of them must live."""
    return sum(time.clock_gettime_ns(_cpu_clock(process.pid)) for process in processes) / 1e9


def _cpu_clock(pid: int) -> int:
    """The clock of another process's CPU time: what clock_getcpuclockid(3) answers, for which Python has no call."""
    return (~pid << 3) | 2


def wake_ups(process: psutil.Process) -> int:
    """How often the process's threads have gone to sleep by themselves."""
    count = 0
    for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
        with suppress(OSError):
            lines = status.read_text().splitlines()
            count += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return count

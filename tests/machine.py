"""A user's machine: a state folder of its own, and the command ``torch-tasks``; and what of it still runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import forked
import psutil
from forked import TORCH_TASKS
from waiting import until

from torch_tasks.system.processes import Processes

SANDBOX = os.environ.get("TORCH_TEST_SANDBOX", "never")
"""Most tests' agents work all over their machine's folder; those about boxes say so themselves."""
COMMANDS_PACE = {
    "TORCH_SANDBOX": SANDBOX,
    "TORCH_HEARTBEAT_SECONDS": "0.5",
    "TORCH_OFFLINE_SECONDS": "5",
    "TORCH_INTERRUPT_SECONDS": "1",
    "TORCH_RESTART_BACKOFF_SECONDS": "0.1",
    "TORCH_BROKER_CONNECT_SECONDS": "5",
    "TORCH_FLOWER_PORT": "0",
    "TORCH_SERVE": "false",
}
"""Quicker than a fleet's own pace, and slow enough for a busy machine."""


def short_folder() -> Path:
    """A new folder whose path leaves room for the names of tmux sockets."""
    return Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))


def survivors(mark: str) -> list[psutil.Process]:
    """Every living process, but this one, with the mark in its folder, its arguments or its environment.

    The broker writes its title over its arguments and its environment: only its folder tells it.
    """
    return [process for process in psutil.process_iter() if _has(process, mark)]


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(mark in word for word in [process.cwd(), *process.cmdline(), *process.environ().values()])
    except psutil.Error:
        return False


class Machine:
    """A state folder of its own, and the processes that run there."""

    enter: tuple[str, ...] = ()
    """The words that run a command on this machine, if it is not the one of the tests."""

    def __init__(self, **environment: str) -> None:
        self.folder = short_folder()
        self.program = TORCH_TASKS
        """The ``torch-tasks`` that it has, which may be another release."""
        self.state = self.folder / "state"
        self.work = self.folder / "work"
        self.work.mkdir()
        users = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH_", "TMUX"))}
        none = {"TORCH_CONFIG_DIR": str(self.folder / "config"), "TORCH_STATE_DIR": str(self.state)}
        self.env = {**users, **none, **COMMANDS_PACE, **environment}

    def torch(
        self, *words: str, code: int | None = 0, stdin: str = "", seconds: float = 90, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``torch-tasks``, which must end with this exit code."""
        argv = [*self.enter, self.program, *words]
        done = forked.run(argv, {**self.env, **env}, cwd=self.work, typed=stdin, seconds=seconds)
        assert code in (None, done.returncode), f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def fork_stack(self) -> None:
        """Have the processes that ``up`` starts be forked from the tests' own warm parent, where that can be."""
        if not forked.why_nothing_is_forked():
            forked.parents.lend(self.env, self.state / "run")
            self.env["TORCH_WARM_START"] = "true"

    def start(self, *words: str) -> forked.Process:
        """Run ``torch-tasks`` beside the test; its output goes to :attr:`output`."""
        with self.output.open("ab") as output:
            return forked.start([*self.enter, self.program, *words], self.env, output, cwd=self.work)

    @property
    def output(self) -> Path:
        """The output of the commands that were started beside the test."""
        return self.folder / "output"

    def process(self, name: str) -> psutil.Process | None:
        """The living process that is recorded under this name."""
        running = Processes(self.state / "run").find(name)  # its number alone may belong to another process by now
        return running.process() if running else None

    def living(self, name: str) -> psutil.Process:
        """The process of this name, which must be there."""
        process = self.process(name)
        assert process, f"{name} does not run"
        return process

    def log(self, name: str) -> str:
        """The log of a process of the stack."""
        return (self.state / "logs" / f"{name}.log").read_text()

    def pane(self, agent_id: str) -> tuple[str, int]:
        """The pane that the agent's journal names, and the process that tmux runs in it."""
        pane_id = json.loads((self.state / "agents" / agent_id / "journal.json").read_bytes())["pane"]
        return pane_id, int(self.tmux(agent_id, "display-message", "-p", "-t", pane_id, "#{pane_pid}"))

    def tmux(self, agent_id: str, *words: str) -> str:
        """tmux's answer to a command for the agent."""
        argv = ["tmux", "-S", str(self.state / "agents" / agent_id / "tmux"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout

    def survivors(self) -> list[psutil.Process]:
        """Every living process that was started in this machine's folder or names it."""
        return survivors(str(self.folder))

    def is_clean(self) -> bool:
        """Whether neither a process nor a tmux socket is left."""
        return not self.survivors() and not list(self.folder.rglob("tmux"))

    def close(self) -> None:
        """Kill every process that is left, also those that are started again meanwhile."""
        until(self._is_all_killed, f"nothing of {self.folder} is left")
        shutil.rmtree(self.folder)

    def _is_all_killed(self) -> bool:
        left = self.survivors()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return not left

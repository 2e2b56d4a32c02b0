"""One machine of a user's: a state folder of its own, and the command ``torch-tasks``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
from waiting import until

from torch_tasks.system.processes import Processes

TORCH_TASKS = str(Path(sys.executable).with_name("torch-tasks"))
PACE = {
    "TORCH_HEARTBEAT_SECONDS": "0.5",
    "TORCH_OFFLINE_SECONDS": "5",
    "TORCH_INTERRUPT_SECONDS": "1",
    "TORCH_RESTART_BACKOFF_SECONDS": "0.1",
    "TORCH_BROKER_CONNECT_SECONDS": "5",
    "TORCH_FLOWER_PORT": "0",
}
"""Quicker than a fleet's own pace, and slow enough for a busy machine."""


class Machine:
    """A state folder of its own, and whatever runs there."""

    enter: tuple[str, ...] = ()
    """What puts a command onto this machine, if it is another one than that of the tests."""

    def __init__(self, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # short: it holds tmux sockets
        self.state = self.folder / "state"
        self.work = self.folder / "work"
        self.work.mkdir()
        users = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH_", "TMUX"))}
        none = {"TORCH_CONFIG_DIR": str(self.folder / "config"), "TORCH_STATE_DIR": str(self.state)}
        self.env = {**users, **none, **PACE, **environment}

    def torch(
        self, *words: str, code: int | None = 0, stdin: str = "", seconds: float = 45, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``torch-tasks`` to its end, which must be this exit code."""
        ended = subprocess.run(
            [*self.enter, TORCH_TASKS, *words],
            input=stdin.encode(),
            capture_output=True,
            check=False,
            cwd=self.work,
            env={**self.env, **env},
            timeout=seconds,
        )
        # Decoded here: subprocess would turn \r\n into \n.
        done = subprocess.CompletedProcess(words, ended.returncode, ended.stdout.decode(), ended.stderr.decode())
        assert code in (None, done.returncode), f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run ``torch-tasks`` beside the test; its output goes to :attr:`output`."""
        with self.output.open("a") as output:
            return subprocess.Popen(
                [*self.enter, TORCH_TASKS, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                cwd=self.work,
                env=self.env,
                start_new_session=True,
            )

    @property
    def output(self) -> Path:
        """What the commands say that were started beside the test."""
        return self.folder / "output"

    def process(self, name: str) -> psutil.Process | None:
        """The living process that is recorded under this name."""
        running = Processes(self.state / "run").find(name)  # by its number alone, it might be anybody's by now
        return running.process() if running else None

    def living(self, name: str) -> psutil.Process:
        """The process of this name, which must be there."""
        process = self.process(name)
        assert process, f"{name} does not run"
        return process

    def log(self, name: str) -> str:
        """What a process of the stack said."""
        return (self.state / "logs" / f"{name}.log").read_text()

    def pane(self, agent_id: str) -> tuple[str, int]:
        """The pane that the agent's journal names, and the process that tmux runs in it."""
        pane_id = json.loads((self.state / "agents" / agent_id / "journal.json").read_bytes())["pane"]
        return pane_id, int(self.tmux(agent_id, "display-message", "-p", "-t", pane_id, "#{pane_pid}"))

    def tmux(self, agent_id: str, *words: str) -> str:
        """What tmux answers to a command for the agent."""
        argv = ["tmux", "-S", str(self.state / "agents" / agent_id / "tmux"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout

    def survivors(self) -> list[psutil.Process]:
        """Every living process that was started in this machine's folder or names it.

        The broker writes its title over its arguments and its environment: it is known by where it runs.
        """
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            words = [process.cwd(), *process.cmdline(), *process.environ().values()]
            return any(str(self.folder) in word for word in words)
        except psutil.Error:
            return False

    def is_clean(self) -> bool:
        """Neither a process nor a terminal's socket is left."""
        return not self.survivors() and not list(self.folder.rglob("tmux"))

    def close(self) -> None:
        """Kill whatever is left, also what is being started again meanwhile."""
        until(self._killed_all, f"nothing of {self.folder} is left")
        shutil.rmtree(self.folder)

    def _killed_all(self) -> bool:
        survivors = self.survivors()
        for process in survivors:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return not survivors

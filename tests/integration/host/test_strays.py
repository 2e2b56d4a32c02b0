"""No process of a former life is left, however it has hidden; and nobody else's is ever ended."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fakes.cli.client import FakeCli
from machine import short_folder
from nodes import Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.model.agent import AgentInfo, AgentSpec
from torch_tasks.model.fields import now
from torch_tasks.model.sandbox import SandboxMode
from torch_tasks.settings import Settings
from torch_tasks.workers.host.terminal import Bell, Terminal
from torch_tasks.workers.programs.config import KindConfig
from torch_tasks.workers.programs.shell import Shell

STARTS = 30
#: What a program starts: a daemon, a daemon of a daemon, and a server on pipes with a clean environment, as of MCP.
CHILDREN = """
setsid sleep {seconds} </dev/null >/dev/null 2>&1 &
(setsid sh -c 'setsid sleep {seconds} & exit' </dev/null >/dev/null 2>&1 &)
pipe=$(mktemp -u "$0.XXXXXX") && mkfifo "$pipe" && \
env -i setsid /bin/sh -c 'trap "" HUP; exec sleep {seconds}' <>"$pipe" >/dev/null 2>&1 &
"""


class Hider(Shell):
    """A fake CLI whose children hide."""

    program: str

    def launch(self, resumes: str | None = None) -> list[str]:
        return [self.program]


class Life:
    """One agent's terminals, one after the other."""

    def __init__(self, folder: Path, sandbox: SandboxMode, agent_id: str = "developer-1") -> None:
        self.seconds = random.randrange(10**6, 10**8)  # recognised by its number
        self.cli = FakeCli(folder / "fake")
        program = folder / "program"
        program.write_text(f"#!/bin/sh\n{CHILDREN.format(seconds=self.seconds)}\nexec {shlex.join(self.cli.argv)}\n")
        program.chmod(0o755)
        self.settings = Settings(state_dir=folder / "state", broker_url=None, sandbox=sandbox)
        agent = self.settings.state.agent(agent_id)
        agent.mkdir(parents=True)
        spec = AgentSpec(id=agent_id, role="developer")
        kind = Hider(KindConfig(command=("sh",)), spec, agent, folder)
        kind.program = str(program)
        self.bell = Bell(agent / "bell", lambda: None)
        self.folder = folder
        self.terminal = Terminal(agent, kind, self.bell, self.settings)
        self.info = AgentInfo(
            agent_id=agent_id,
            role="developer",
            node="node-a",
            host="here",
            pid=1,
            incarnation=1,
            workdir=str(folder),
            tmux_socket=str(agent / "tmux"),
            started_at=now(),
        )
        self.starts = 0

    def start(self) -> None:
        """Start the program, and wait until it and its children are there."""
        self.terminal.start(self.info, self.folder)
        self.starts += 1
        until(lambda: len(self.cli.records("started")) == self.starts, "the program runs")
        until(lambda: len(self.children()) == 3, "its children run")

    def children(self) -> list[psutil.Process]:
        """The children of all lives."""
        return [process for process in psutil.process_iter() if _is_sleep(process, self.seconds)]

    def processes(self) -> list[psutil.Process]:
        """All that belongs to it, whatever it is."""
        return self.terminal.lineage.members()

    def kill(self, number: int) -> None:
        """Kill the program, or its tmux server, or both; or lose the server's socket."""
        server = psutil.Process(self.terminal.server_pid or 0)
        program = self.terminal.processes()[0]
        if number % 4 in (0, 2):
            program.kill()
        if number % 4 in (1, 2):
            server.kill()
        if number % 4 == 3:
            self.terminal.pane.server.socket.unlink()


def _is_sleep(process: psutil.Process, seconds: int) -> bool:
    try:
        return process.cmdline()[-1:] == [str(seconds)] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["auto", "never"])
def sandbox(request: pytest.FixtureRequest) -> SandboxMode:
    """With a box around the program, where this machine can, and without."""
    mode: SandboxMode = request.param
    return mode


@pytest.fixture
def life(folder: Path, sandbox: SandboxMode) -> Iterator[Life]:
    (folder / "mine").mkdir()
    life = Life(folder / "mine", sandbox)
    yield life
    life.terminal.end()
    life.bell.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_after_many_starts_and_kills_nothing_is_left(life: Life, folder: Path, sandbox: SandboxMode) -> None:
    (folder / "other").mkdir()
    other = Life(folder / "other", sandbox)
    other.start()
    users = subprocess.Popen(["sleep", "600"], env={**os.environ, "TORCH_AGENT_ID": "developer-1"})
    others = other.processes()
    for number in range(STARTS):
        life.start()
        life.kill(number)
    life.start()
    assert len(life.children()) == 3
    assert len(life.cli.records("started")) == STARTS + 1
    life.terminal.end()
    assert not life.children()
    assert not life.processes()
    assert users.poll() is None
    assert other.processes() == others
    users.kill()
    users.wait()
    other.terminal.end()
    other.bell.close()
    assert not other.children()


def test_a_check_whose_worker_was_killed_does_not_run_beside_the_next_one(node: Node, torch: Torch) -> None:
    seconds = random.randrange(10**6, 10**8)
    worker = node.agent_worker("developer-1")
    gate = node.folder / "gate"
    check = f"test -e {gate} || {{ setsid sleep {seconds} & sleep {seconds}; }}"
    task = torch.enqueue("true", agent="developer-1", check=check)
    until(lambda: len(_sleeping(seconds)) == 2, "the check runs")
    worker.kill()
    gate.touch()
    node.agent_worker("developer-1")
    assert task.result(timeout=60).succeeded
    assert not _sleeping(seconds)


def test_a_node_that_starts_ends_what_is_left_of_an_agent_that_it_does_not_keep(node: Node, torch: Torch) -> None:
    seconds = random.randrange(10**6, 10**8)
    worker = node.agent_worker("developer-1")
    assert torch.enqueue(f"setsid sleep {seconds} &", agent="developer-1").result(timeout=60).succeeded
    server = psutil.Process(int(worker.tmux("display-message", "-p", "#{pid}")))
    worker.kill()
    for process in (*server.children(), server):
        process.kill()
    assert len(_sleeping(seconds)) == 1
    node.node_worker()
    until(lambda: not _sleeping(seconds), "it is ended")
    assert "developer-1: ended what a former life has left" in node.said_last()


def test_what_programs_unpacked_of_themselves_goes_with_them(node: Node, torch: Torch) -> None:
    worker = node.agent_worker("developer-1")
    unpack = 'mktemp "$BUN_TMPDIR/.XXXXXXXX-00000000.so"'
    made = [
        Path(torch.enqueue(unpack, fresh=fresh).result(timeout=60).answer.strip()) for fresh in (False, False, True)
    ]
    assert [file.exists() for file in made] == [False, False, True]
    assert {file.parent.parent for file in made} == {worker.folder}
    worker.kill()
    worker.end_terminal()
    node.node_worker()
    until(lambda: not made[-1].exists(), "what is left of a dead agent is removed")


def _sleeping(seconds: int) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _is_sleep(process, seconds) and process.name() == "sleep"]

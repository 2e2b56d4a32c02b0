"""Fleets of fake coding agents (``tests/fakes/cli``): their workers, tmux and hooks are real, only the model is not."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from fake_kind import kind_toml
from fakes.cli.client import FakeCli

from benchmarks.harness import Agent, Stage

TELLING, SILENT = "telling-fake", "silent-fake"
"""The kind whose hooks report what happens, and the one that Torch knows only by its screen."""


@dataclass(frozen=True)
class FakeAgent:
    """An agent worker with its fake program."""

    agent: Agent
    cli: FakeCli

    @property
    def id(self) -> str:
        """The agent's id."""
        return self.agent.id

    def tmux(self, *words: str) -> str:
        """tmux's answer for the agent's pane."""
        return tmux(self.agent.socket, *words)

    def program(self) -> psutil.Process:
        """The fake program."""
        return psutil.Process(int(self.tmux("display-message", "-p", "#{pane_pid}")))

    def torch_side(self) -> list[psutil.Process]:
        """The processes that Torch needs for it: all but the program and what that started."""
        theirs = {self.program(), *self.program().children(recursive=True)}
        return [process for process in [self.agent.worker, *self.agent.terminal()] if process not in theirs]


@contextmanager
def fake_agents(stage: Stage, ids: Sequence[str], kind: str = TELLING) -> Iterator[list[FakeAgent]]:
    """Agents of this kind, ready, briefed, each of which has done one task already."""
    folder = _kinds(stage)
    clis = [FakeCli(folder / agent_id) for agent_id in ids]
    with stage.hosted(ids, kind, "get ready") as agents:
        yield [FakeAgent(agent, cli) for agent, cli in zip(agents, clis, strict=True)]


def _kinds(stage: Stage) -> Path:
    """Have both kinds known to all workers that start from now on; returns the folder of the fake programs."""
    folder = stage.folder / "fakes"
    kinds = folder / "config" / "agents"
    kinds.mkdir(parents=True, exist_ok=True)
    program = folder / "program"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(str(folder))}/"$TORCH_AGENT_ID"/fake-cli "$@"\n')
    program.chmod(0o755)
    commands = {TELLING: [str(program), "--settings", "{hooks}"], SILENT: [str(program)]}
    for kind, command in commands.items():
        (kinds / f"{kind}.toml").write_text(kind_toml(command, hooks=kind == TELLING))
    os.environ["TORCH_CONFIG_DIR"] = str(kinds.parent)
    return folder


def tmux(socket: Path, *words: str) -> str:
    """tmux's answer; empty if it refuses."""
    argv = ["tmux", "-S", str(socket), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.rstrip("\n")


def wall(record: dict[str, Any]) -> float:
    """When the fake program recorded this, by the wall clock."""
    return float(record["at"]) + time.time() - time.monotonic()

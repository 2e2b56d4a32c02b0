"""The command lines of Torch's processes, the same as in the deployment files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch_tasks.app import AGENT_OPTIONS
from torch_tasks.model.agent import AgentSpec

NODE = ("torch-tasks", "node")
BEAT = ("celery", "-A", "torch_tasks", "beat", "--loglevel", "INFO")
SUPERVISE = ("torch-tasks", "supervise")
END_PANES = ("torch-tasks", "end-panes")
CHECK_AGENTS = ("torch-tasks", "check-agents")


def node(agents: Sequence[AgentSpec]) -> tuple[str, ...]:
    """The node worker that keeps these agents alive; without any, those of torch.toml."""
    return (*NODE, *(word for agent in agents for word in ("--agent", agent.short())))


def agent_worker(agent: AgentSpec) -> tuple[str, ...]:
    return ("torch-tasks", "worker", *AGENT_OPTIONS.words(agent))


def flower(address: str, port: int) -> tuple[str, ...]:
    """Flower; its password comes from FLOWER_BASIC_AUTH, never from the command line."""
    columns = "--tasks_columns=name,state,args,kwargs,worker,received,runtime,uuid"
    return ("celery", "-A", "torch_tasks", "flower", f"--address={address}", f"--port={port}", columns)


_MODULES = {"celery": "celery", "torch-tasks": "torch_tasks.cli"}


def runnable(command: Sequence[str]) -> list[str]:
    """The command as this very Python runs it, whatever PATH and the working folder hold."""
    return [sys.executable, "-P", "-m", _MODULES[command[0]], *command[1:]]

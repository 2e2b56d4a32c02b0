"""The command lines of Torch's processes, the same as in the deployment files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch_tasks.model.agent import AgentSpec
from torch_tasks.started_by_name import WARM_PARENT as WARM

NODE = ("torch-tasks", "node")
BEAT = ("celery", "-A", "torch_tasks", "beat", "--loglevel", "INFO")
SERVE = ("torch-tasks", "serve")
SUPERVISE = ("torch-tasks", "supervise")
END_PANES = ("torch-tasks", "end-panes")
CHECK_AGENTS = ("torch-tasks", "check-agents")
MCP = ("torch-tasks", "mcp")
CERTIFY = ("torch-tasks", "certify", "--json")


def node(agents: Sequence[AgentSpec]) -> tuple[str, ...]:
    """The node worker that keeps these agents alive; without any, those of torch.toml."""
    return (*NODE, *(word for agent in agents for word in ("--agent", agent.short())))


def agent_worker(agent: AgentSpec) -> tuple[str, ...]:
    from torch_tasks.app import AGENT_OPTIONS  # with Celery, which the other commands are written down without

    return ("torch-tasks", "worker", *AGENT_OPTIONS.words(agent))


def flower(address: str, port: int) -> tuple[str, ...]:
    """Flower; its password comes from FLOWER_BASIC_AUTH, never from the command line."""
    columns = "--tasks_columns=name,state,args,kwargs,worker,received,runtime,uuid"
    return ("celery", "-A", "torch_tasks", "flower", f"--address={address}", f"--port={port}", columns)


def server(port: int) -> tuple[str, ...]:
    return (*SERVE, f"--port={port}")


WARM_PARENT = (sys.executable, "-P", "-m", WARM)
"""What forks the others; the path of its socket comes after it."""
_MODULES = {"celery": "celery", "torch-tasks": "torch_tasks.cli"}
#: How the arguments of each lasting process go on behind the name of its Python.
_LASTING = {
    "up": ("-P", "-m", "torch_tasks.cli", "supervise"),
    "node": ("-P", "-m", "torch_tasks.cli", "node"),
    "agent worker": ("-P", "-m", "torch_tasks.cli", "worker"),
    "beat": ("-P", "-m", "celery", "-A", "torch_tasks", "beat"),
    "flower": ("-P", "-m", "celery", "-A", "torch_tasks", "flower"),
    "server": ("-P", "-m", "torch_tasks.cli", "serve"),
    "warm": ("-P", "-m", WARM),
}


def runnable(command: Sequence[str]) -> list[str]:
    """The command as this very Python runs it, whatever PATH and the working folder hold."""
    return [sys.executable, "-P", "-m", _MODULES[command[0]], *command[1:]]


def lasting_process(argv: Sequence[str]) -> str | None:
    """Which of Torch's lasting processes has these arguments, if :func:`runnable` made them; else None."""
    after_python = tuple(argv[1:])
    for name, words in _LASTING.items():
        if after_python[: len(words)] == words:
            return name
    return None

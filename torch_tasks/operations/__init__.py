"""Every act that a caller may ask for, declared once: its request, its reply, and the right that it takes.

One file for one noun. The doors (Python, the command line, the desk, the server, MCP) translate what they are given
into these requests, and do nothing else.

Each is loaded when it is first asked for, so that a program or a command loads those of its own noun alone.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_tasks.operations import agents, checkins, fleet, messages, nodes, tasks

__all__ = ["agents", "checkins", "fleet", "messages", "nodes", "tasks"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

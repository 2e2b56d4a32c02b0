"""Who is there and who gets what: the agent registry, and the orchestrator that gives tasks to agents.

>>> from torch_tasks.orchestration import AgentRegistry
>>> AgentRegistry().find_available_agents(role="developer", skills=["python"])  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_tasks.orchestration.assignment import TaskOrchestrator
    from torch_tasks.store.agents import AgentRegistry

__all__ = ["AgentRegistry", "TaskOrchestrator"]

_HOME = {"AgentRegistry": "agent_registry", "TaskOrchestrator": "assignment"}


def __getattr__(name: str) -> Any:
    # On first use: the orchestrator needs the fleet, and the fleet this package.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

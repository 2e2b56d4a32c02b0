"""The agent registry, and the orchestrator that assigns tasks to agents.

>>> from torch_tasks.orchestration import AgentRegistry
>>> AgentRegistry().find_available_agents(role="developer", skills=["python"])  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch_tasks.started_by_name import AGENT_REGISTRY, TASK_ORCHESTRATOR, load

if TYPE_CHECKING:
    from torch_tasks.facades.agents import AgentRegistry
    from torch_tasks.facades.assignment import TaskOrchestrator

__all__ = ["AgentRegistry", "TaskOrchestrator"]

_HOME = {"AgentRegistry": AGENT_REGISTRY, "TaskOrchestrator": TASK_ORCHESTRATOR}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return load(_HOME[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The agent registry, and the orchestrator that assigns tasks to agents.

>>> from torch_tasks.orchestration import AgentRegistry
>>> AgentRegistry().find_available_agents(role="developer", skills=["python"])  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch_tasks.store.agents import AgentRegistry

if TYPE_CHECKING:
    from torch_tasks.orchestration.assignment import TaskOrchestrator

__all__ = ["AgentRegistry", "TaskOrchestrator"]


def __getattr__(name: str) -> Any:
    if name == "TaskOrchestrator":  # on first use: it loads Celery, for which quick commands do not wait
        return import_module("torch_tasks.orchestration.assignment").TaskOrchestrator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

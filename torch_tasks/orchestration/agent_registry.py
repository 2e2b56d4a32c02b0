"""``python -m torch_tasks.orchestration.agent_registry``: list the agents, or start one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch_tasks.started_by_name import AGENT_REGISTRY, REGISTRY_COMMAND, load

if TYPE_CHECKING:
    from torch_tasks.facades.agents import AgentRegistry

__all__ = ["AgentRegistry"]


def __getattr__(name: str) -> Any:
    if name == "AgentRegistry":
        return load(AGENT_REGISTRY)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    load(REGISTRY_COMMAND)(prog_name="python -m torch_tasks.orchestration.agent_registry")

"""``python -m torch_tasks.orchestration.agent_registry``: list the agents, or start one."""

from __future__ import annotations

from torch_tasks.store.agents import AgentRegistry

__all__ = ["AgentRegistry"]

if __name__ == "__main__":
    from importlib import import_module  # the commands know this module, not the other way round

    import_module("torch_tasks.cli.agents").registry(prog_name="python -m torch_tasks.orchestration.agent_registry")

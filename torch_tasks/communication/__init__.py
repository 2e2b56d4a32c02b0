"""Messages between agents, people and services."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch_tasks.started_by_name import NOVA_ORCHESTRATOR, load

if TYPE_CHECKING:
    from torch_tasks.facades.messages import NovaOrchestrator
    from torch_tasks.model.message import Message, MessageRecord, MessageState, Sent

__all__ = ["Message", "MessageRecord", "MessageState", "NovaOrchestrator", "Sent"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the policy is checked without all that sends messages.
    if name == "NovaOrchestrator":
        return load(NOVA_ORCHESTRATOR)
    if name in __all__:
        return getattr(import_module("torch_tasks.model.message"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Messages between agents, people and services."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_tasks.communication.orchestrator import NovaOrchestrator
    from torch_tasks.model.message import Message, MessageRecord, MessageState, Sent

__all__ = ["Message", "MessageRecord", "MessageState", "NovaOrchestrator", "Sent"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the policy is checked without all that sends messages.
    if name == "NovaOrchestrator":
        return import_module("torch_tasks.communication.orchestrator").NovaOrchestrator
    if name in __all__:
        return getattr(import_module("torch_tasks.model.message"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

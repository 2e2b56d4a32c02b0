"""Messages between agents, people and services: from the sender's disk through the broker into the receiver's pane."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_tasks.communication.orchestrator import NovaOrchestrator
    from torch_tasks.model.message import Message, MessageRecord, MessageState, Sent

__all__ = ["Message", "MessageRecord", "MessageState", "NovaOrchestrator", "Sent"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # loaded on first use: an agent's worker needs only a part
        where = "communication.orchestrator" if name == "NovaOrchestrator" else "model.message"
        return getattr(import_module(f"torch_tasks.{where}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

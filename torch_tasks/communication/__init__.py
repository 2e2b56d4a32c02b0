"""Messages between agents, people and services."""

from __future__ import annotations

from torch_tasks.communication.orchestrator import NovaOrchestrator
from torch_tasks.model.message import Message, MessageRecord, MessageState, Sent

__all__ = ["Message", "MessageRecord", "MessageState", "NovaOrchestrator", "Sent"]

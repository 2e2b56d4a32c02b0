"""How the last backup ended that a machine took by itself."""

from __future__ import annotations

from pydantic import AwareDatetime

from torch_tasks.model.fields import AgentId, Model


class LastBackup(Model):
    node: AgentId
    at: AwareDatetime
    trouble: str = ""
    """Why there is none, or what is missing in it; empty if it is whole."""

"""Nodes: what the machines of the fleet tell of themselves."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime

from torch_tasks.model.agent import AgentStatus
from torch_tasks.model.fields import AgentId, Model, Skills


class KeptState(StrEnum):
    """How an agent worker stands with the node worker that keeps it."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """It has ended and is started again in a moment."""
    QUARANTINED = "quarantined"
    """It did nothing but die and is left down until somebody releases it."""
    RETIRING = "retiring"
    RETIRED = "retired"
    """It is declared in torch.toml, but somebody retired it."""


class KeptAgent(Model):
    """An agent that a node worker keeps, or would if it could."""

    agent_id: AgentId
    role: str
    kind: str
    parent: str | None = None
    state: KeptState
    reason: str = ""
    """Why it is in quarantine."""


class Capacity(Model):
    """What a machine has, and what of it is free."""

    cpus: int
    load: float
    """Over the last minute, as the machine tells it."""
    memory_total: int
    memory_free: int
    panes: int
    """Terminals of agents that are there."""
    agents_limit: int


class NodeInfo(Model):
    """A node as the registry knows it."""

    name: AgentId
    host: str
    pid: int
    address: str
    """Where a person reaches it, by ssh for one."""
    version: str
    labels: Skills = ()
    capacity: Capacity
    state_dir: str
    incarnation: int = 0
    agents: tuple[KeptAgent, ...] = ()
    started_at: AwareDatetime
    left: bool = False
    """Its node worker said goodbye."""
    drained: bool = False
    """No agent is started there any more; somebody said so."""
    status: AgentStatus = AgentStatus.OFFLINE
    last_heartbeat: AwareDatetime | None = None

    @property
    def online(self) -> bool:
        """The fleet hears of it."""
        return self.status is AgentStatus.ACTIVE

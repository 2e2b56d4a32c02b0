"""Nodes: what the machines of the fleet report about themselves, and about the agents they keep."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime

from torch_tasks.model.agent import AgentStatus
from torch_tasks.model.fields import AgentId, Model, Skills


class KeptState(StrEnum):
    """What the node worker does about one agent's worker."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """It is not there and is started in a moment."""
    QUARANTINED = "quarantined"
    """It did nothing but die and is left down until it is released."""
    RETIRING = "retiring"
    """There is an order that the agent ends; its worker may still have to finish a task."""
    RETIRED = "retired"
    """The agent is declared in torch.toml, but was retired, and is left down until it is released."""


KEPT_TRANSITIONS: dict[KeptState, frozenset[KeptState]] = {
    KeptState.RESTARTING: frozenset({KeptState.RUNNING, KeptState.QUARANTINED, KeptState.RETIRING}),
    KeptState.RUNNING: frozenset({KeptState.RESTARTING, KeptState.RETIRING}),
    KeptState.QUARANTINED: frozenset({KeptState.RESTARTING, KeptState.RETIRING}),
    KeptState.RETIRING: frozenset({KeptState.RETIRED}),
    KeptState.RETIRED: frozenset({KeptState.RESTARTING}),
}


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
    """What a machine has, and how much of it is free."""

    cpus: int
    load: float
    """Over the last minute."""
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
    """Its node worker was stopped in order."""
    drained: bool = False
    """No agent is started there any more, by order."""
    status: AgentStatus = AgentStatus.OFFLINE
    last_heartbeat: AwareDatetime | None = None

    @property
    def online(self) -> bool:
        """Its heartbeats arrive."""
        return self.status is AgentStatus.ACTIVE

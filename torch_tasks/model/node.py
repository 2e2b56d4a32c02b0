"""Nodes: what the machines of the fleet report about themselves and the agents they keep alive."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime

from torch_tasks.model.agent import AgentStatus
from torch_tasks.model.fields import AgentId, Model, Skills
from torch_tasks.model.fleet_format import FORMAT


class KeptState(StrEnum):
    """How one agent's worker stands with its node worker."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """It is not running and is started in a moment."""
    QUARANTINED = "quarantined"
    """It crashed too often and is left down until it is released."""
    RETIRING = "retiring"
    """The agent was ordered to end; its worker may still have to finish a task."""
    RETIRED = "retired"
    """The agent of torch.toml was retired, and is left down until it is released."""


KEPT_TRANSITIONS: dict[KeptState, frozenset[KeptState]] = {
    KeptState.RESTARTING: frozenset({KeptState.RUNNING, KeptState.QUARANTINED, KeptState.RETIRING}),
    KeptState.RUNNING: frozenset({KeptState.RESTARTING, KeptState.RETIRING}),
    KeptState.QUARANTINED: frozenset({KeptState.RESTARTING, KeptState.RETIRING}),
    KeptState.RETIRING: frozenset({KeptState.RETIRED}),
    KeptState.RETIRED: frozenset({KeptState.RESTARTING}),
}


class KeptAgent(Model):
    """An agent that a node worker keeps alive, or tries to."""

    agent_id: AgentId
    role: str
    kind: str
    parent: str | None = None
    state: KeptState
    reason: str = ""
    """Why it is in quarantine, or is not started now."""
    memory: int = 0
    """How many bytes all in its terminal uses, as of the last look; 0: it is not known."""


class Capacity(Model):
    """What a machine has and how much of it is free."""

    cpus: int
    load: float
    """Over the last minute."""
    memory_total: int
    memory_free: int
    panes: int
    """How many terminals of agents there are."""
    agents_limit: int


class NodeInfo(Model):
    name: AgentId
    host: str
    pid: int
    address: str
    """Where a person reaches it, as by ssh."""
    version: str
    format: int = FORMAT
    """In which it reads and writes what the fleet shares."""
    labels: Skills = ()
    capacity: Capacity
    state_dir: str
    incarnation: int = 0
    agents: tuple[KeptAgent, ...] = ()
    started_at: AwareDatetime
    left: bool = False
    """Its node worker was stopped by order."""
    drained: bool = False
    """By order, no agent is started there any more."""
    status: AgentStatus = AgentStatus.OFFLINE
    last_heartbeat: AwareDatetime | None = None

    @property
    def online(self) -> bool:
        return self.status is AgentStatus.ACTIVE

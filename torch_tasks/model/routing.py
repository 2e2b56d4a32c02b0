"""Which queue a task goes to, which agents read that queue, and which agent is able to take a task.

A task names a role and skills, or one agent, and so does its queue's name. The first task on a queue adds the name to
the set of demanded queues and announces it; every agent that serves the queue begins to read it. So free and able
agents pull their tasks, and there is no assigner.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from functools import cached_property

from torch_tasks import keys
from torch_tasks.model.agent import AgentInfo, AgentProfile, AgentState
from torch_tasks.model.task import HELD, TaskRecord, TaskSpec, TaskState

_NAMED = 3
"""How many of the agents that a task waits for are named."""


def queue_for(spec: TaskSpec) -> str:
    return keys.agent_queue(spec.agent) if spec.agent else keys.task_queue(spec.role, spec.skills)


def serves(queue: str, agent: AgentProfile) -> bool:
    """Whether such an agent can take every task of this queue, and so reads it."""
    return agent.serves(*keys.queue_demand(queue))


# ── could the agent ever take it? ────────────────────────────────────────────────────────────────────────────────────


def is_able(agent: AgentInfo, spec: TaskSpec) -> bool:
    """Whether the agent could ever take the task: the task names it, or it has the role and all the skills."""
    return agent.agent_id == spec.agent if spec.agent else agent.serves(spec.role, spec.skills)


# ── does it take any task now? ───────────────────────────────────────────────────────────────────────────────────────


class Obstacle(StrEnum):
    """What keeps an agent from taking any task now. A task that it works on is no obstacle."""

    OFFLINE = "offline"
    RETIRING = "retiring"
    STOPPED = "stopped"
    PAUSED = "paused"
    LIMITED = "limited"
    LOGIN = "login"
    HELD_UP = "held-up"
    ERROR = "error"
    EXITED = "exited"


GONE = frozenset({Obstacle.OFFLINE, Obstacle.RETIRING})
"""An agent with one of these reads no queue."""
HELD_BACK = frozenset({Obstacle.STOPPED, Obstacle.PAUSED, Obstacle.LIMITED, Obstacle.LOGIN, Obstacle.HELD_UP})
"""These last until a person acts or a limit ends."""
PROGRAM_OBSTACLES = {
    AgentState.LIMITED: Obstacle.LIMITED,
    AgentState.LOGIN: Obstacle.LOGIN,
    AgentState.ERROR: Obstacle.ERROR,
    AgentState.EXITED: Obstacle.EXITED,
}
"""The states of its program in which an agent takes no task."""
_PROGRAM_TROUBLES = {
    Obstacle.LIMITED: "its account has reached a limit",
    Obstacle.LOGIN: "its program is logged out",
    Obstacle.HELD_UP: "its program waits for a person",
    Obstacle.ERROR: "its program shows an error",
    Obstacle.EXITED: "its program has exited",
}


def obstacles(agent: AgentInfo) -> list[Obstacle]:
    """All obstacles of the agent; one without any takes its next task as soon as it is free."""
    found = {
        Obstacle.OFFLINE: not agent.online,
        Obstacle.RETIRING: agent.retiring,
        Obstacle.STOPPED: agent.stopped is not None,
        Obstacle.PAUSED: agent.paused is not None,
        Obstacle.HELD_UP: agent.is_held_up,
    }
    program = PROGRAM_OBSTACLES.get(agent.state)
    return [obstacle for obstacle, there in found.items() if there] + ([program] if program else [])


def is_there(agent: AgentInfo) -> bool:
    """Whether the agent reads its queues: it is online and does not retire."""
    return not GONE.intersection(obstacles(agent))


def is_held_back(agent: AgentInfo) -> bool:
    """Whether the agent takes no tasks until a person acts or a limit ends."""
    return not HELD_BACK.isdisjoint(obstacles(agent))


def why_no_successor(agent: AgentInfo, spec: TaskSpec) -> str:
    """Why a task cannot be handed over to this agent; empty if it can: a paused one begins when it is resumed."""
    for obstacle in obstacles(agent):
        if obstacle in GONE:
            return f"it is {obstacle}"
        if obstacle in _PROGRAM_TROUBLES:
            return _PROGRAM_TROUBLES[obstacle]
    missing = sorted(set(spec.skills) - agent.abilities)
    return f"it lacks {', '.join(missing)}" if missing else ""


# ── why does a task wait? ────────────────────────────────────────────────────────────────────────────────────────────


def believed_state(record: TaskRecord) -> str:
    """The task's state in words, with whether it is believed."""
    return f"{record.state} (not believed)" if record.forged else str(record.state)


class Prospects:
    """What the agents, the whole fleet, mean for tasks that wait; what many tasks ask for is looked up once."""

    def __init__(self, agents: Collection[AgentInfo]) -> None:
        self._agents = agents
        self._able: dict[tuple[object, ...], list[AgentInfo]] = {}
        self._reasons: dict[tuple[object, ...], str | None] = {}

    def unroutable(self, record: TaskRecord) -> bool:
        """Whether the task waits and no agent that reads its queue is able to take it."""
        return record.state is TaskState.QUEUED and not self._readers(record.spec)

    def why_waiting(self, record: TaskRecord) -> str | None:
        """Why the task waits, if there is a reason for every agent that could take it or go on with it."""
        if record.state in HELD:
            return _why_it_stands_still(record, self._agents)
        if record.state is not TaskState.QUEUED:
            return None
        able = self._readers(record.spec)
        if not able:
            return _why_nobody(record.spec, self._agents)
        if record.spec.agent:
            return _why_none_begins(record.spec, able)
        asked = _asked_of_agents(record.spec)
        if asked not in self._reasons:
            self._reasons[asked] = _why_none_begins(record.spec, able)
        return self._reasons[asked]

    @cached_property
    def _there(self) -> list[AgentInfo]:
        return [agent for agent in self._agents if is_there(agent)]

    def _readers(self, spec: TaskSpec) -> list[AgentInfo]:
        """The agents that read its queue and are able to take it."""
        asked = _asked_of_agents(spec)
        if asked not in self._able:
            self._able[asked] = [agent for agent in self._there if is_able(agent, spec)]
        return self._able[asked]


def _asked_of_agents(spec: TaskSpec) -> tuple[object, ...]:
    """All of a task that says which agents are able to take it."""
    return spec.agent, spec.role, spec.skills


def _why_none_begins(spec: TaskSpec, able: Collection[AgentInfo]) -> str | None:
    reasons = [f"{agent.agent_id} {why}" for agent in able if (why := _why_not_now(agent, spec))]
    if len(reasons) < len(able):
        return None
    more = [f"and {len(able) - _NAMED} more"] if len(able) > _NAMED else []
    return "; ".join([*reasons[:_NAMED], *more]) or None


def _why_it_stands_still(record: TaskRecord, agents: Collection[AgentInfo]) -> str | None:
    if any(agent.online for agent in agents if agent.agent_id == record.agent):
        return None
    then = "that agent is back" if record.spec.agent else "it is back, or another agent takes it over"
    return f"{record.agent}, which has it, is gone; it goes on when {then}"


def _why_nobody(spec: TaskSpec, agents: Collection[AgentInfo]) -> str:
    if spec.agent:
        named = next((agent for agent in agents if agent.agent_id == spec.agent), None)
        why = "does not exist" if named is None else "is retiring" if named.online else "is gone"
        return f"agent {spec.agent}, which it asks for, {why}"
    skills = f"skill{'s' if len(spec.skills) > 1 else ''} {', '.join(spec.skills)}" if spec.skills else ""
    needed = " and ".join(filter(None, (f"role {spec.role}" if spec.role else "", skills)))
    return f"no agent {f'with {needed} ' if needed else ''}is online"


def _why_not_now(agent: AgentInfo, spec: TaskSpec) -> str | None:
    """Why the agent does not take the task now; None if it is only busy with a task that came first."""
    if agent.hold_reason:
        return f"is {agent.hold_reason}"
    if agent.state is AgentState.LIMITED:
        return "waits for the end of its account's limit"
    if agent.state is AgentState.STARTING and not agent.current_task:
        return "is starting"
    if not spec.agent or agent.current_task in (None, spec.id):  # it may have begun since the record was read
        return None
    return f"works on {agent.current_task}"

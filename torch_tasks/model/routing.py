"""Which queue a task goes to, which agents read that queue, and which agent is able to take a task.

A task names a role and skills, or one agent. Its queue's name says which; the first task on a queue puts the name
into the set of demanded queues and announces it, and every agent that serves it begins to read it. So a free,
able agent always pulls, and there is no assigner.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from torch_tasks import keys
from torch_tasks.model.agent import AgentInfo, AgentProfile, AgentState
from torch_tasks.model.task import TaskRecord, TaskSpec, TaskState

_NAMED = 3
"""So many of the agents that a task waits for are named."""


def queue_for(spec: TaskSpec) -> str:
    """The queue of this task."""
    return keys.agent_queue(spec.agent) if spec.agent else keys.task_queue(spec.role, spec.skills)


def serves(queue: str, agent: AgentProfile) -> bool:
    """Whether such an agent can take every task that comes through this queue, and so reads it."""
    return agent.serves(*keys.queue_demand(queue))


# ── could the agent ever take it? ────────────────────────────────────────────────────────────────────────────────────


def is_able(agent: AgentInfo, spec: TaskSpec) -> bool:
    """Whether the agent could ever take the task: it is asked for by name, or has the role and all the skills."""
    return agent.agent_id == spec.agent if spec.agent else agent.serves(spec.role, spec.skills)


def missing_skills(agent: AgentProfile, spec: TaskSpec) -> list[str]:
    """The skills that the task requires and the agent lacks."""
    return sorted(set(spec.skills) - agent.abilities)


# ── does it take any task now? ───────────────────────────────────────────────────────────────────────────────────────


class Obstacle(StrEnum):
    """What keeps an agent from taking any task now, whatever the task asks for. To be busy is no obstacle."""

    OFFLINE = "offline"
    RETIRING = "retiring"
    STOPPED = "stopped"
    PAUSED = "paused"
    LIMITED = "limited"
    LOGIN = "login"
    ERROR = "error"
    EXITED = "exited"


GONE = frozenset({Obstacle.OFFLINE, Obstacle.RETIRING})
"""With one of these an agent reads no queue."""
HELD_BACK = frozenset({Obstacle.STOPPED, Obstacle.PAUSED, Obstacle.LIMITED, Obstacle.LOGIN})
"""These last until a person, or the end of a limit, ends them."""
PROGRAM_OBSTACLES = {
    AgentState.LIMITED: Obstacle.LIMITED,
    AgentState.LOGIN: Obstacle.LOGIN,
    AgentState.ERROR: Obstacle.ERROR,
    AgentState.EXITED: Obstacle.EXITED,
}
"""The states of its program in which an agent takes no task."""


def obstacles(agent: AgentInfo) -> list[Obstacle]:
    """All that keeps the agent from taking tasks now; an agent without any takes its next one as soon as it is free."""
    found = {
        Obstacle.OFFLINE: not agent.online,
        Obstacle.RETIRING: agent.retiring,
        Obstacle.STOPPED: agent.stopped is not None,
        Obstacle.PAUSED: agent.paused is not None,
    }
    program = PROGRAM_OBSTACLES.get(agent.state)
    return [obstacle for obstacle, there in found.items() if there] + ([program] if program else [])


def is_there(agent: AgentInfo) -> bool:
    """Whether the agent is online and stays: it reads its queues."""
    return not GONE.intersection(obstacles(agent))


def is_held_back(agent: AgentInfo) -> bool:
    """Whether something other than its work keeps the agent from taking tasks, for longer than a moment."""
    return not HELD_BACK.isdisjoint(obstacles(agent))


def why_no_successor(agent: AgentInfo, spec: TaskSpec) -> str:
    """Why a task cannot be handed over to this agent; empty if it can. A paused one goes on when it is resumed."""
    for obstacle in obstacles(agent):
        if obstacle in GONE:
            return f"it is {obstacle}"
        if obstacle in PROGRAM_OBSTACLES.values():
            return f"its program is {agent.state}"
    missing = missing_skills(agent, spec)
    return f"it lacks {', '.join(missing)}" if missing else ""


# ── why does a task wait? ────────────────────────────────────────────────────────────────────────────────────────────


def unroutable(record: TaskRecord, agents: Collection[AgentInfo]) -> bool:
    """Whether the task waits, and no agent that is there is able to take it."""
    return record.state is TaskState.QUEUED and not _readers(record.spec, agents)


def why_waiting(record: TaskRecord, agents: Collection[AgentInfo]) -> str | None:
    """Why the task waits, if each agent that reads its queue is known not to take it now."""
    able = _readers(record.spec, agents)
    reasons = [f"{agent.agent_id} {why}" for agent in able if (why := _why_not_now(agent, record.spec))]
    if record.state is not TaskState.QUEUED or len(reasons) < len(able):
        return None
    more = [f"and {len(able) - _NAMED} more"] if len(able) > _NAMED else []
    return "; ".join([*reasons[:_NAMED], *more]) or None


def _readers(spec: TaskSpec, agents: Collection[AgentInfo]) -> list[AgentInfo]:
    return [agent for agent in agents if is_there(agent) and is_able(agent, spec)]


def _why_not_now(agent: AgentInfo, spec: TaskSpec) -> str | None:
    """What keeps the agent from taking the task, if it is more than that all are busy."""
    if agent.hold_reason:
        return f"is {agent.hold_reason}"
    if agent.state is AgentState.LIMITED:
        return "is limited, its account rests"
    if not spec.agent or agent.current_task in (None, spec.id):  # the record was read a moment before it began
        return None
    return f"works on {agent.current_task}"

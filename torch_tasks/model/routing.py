"""Where is it decided which queue a task goes to, and which agents read that queue?

A task names a role and skills, or one agent. Its queue's name says which; the first task on a queue puts the name
into the set of demanded queues and announces it, and every agent that can serve it begins to read it. So a free,
able agent always pulls, and nobody assigns.
"""

from __future__ import annotations

from collections.abc import Collection

from torch_tasks import keys
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.task import TaskRecord, TaskSpec, TaskState

_NAMED = 3
"""So many of the agents that a task waits for are named."""


def queue_for(spec: TaskSpec) -> str:
    """The queue of this task."""
    return keys.agent_queue(spec.agent) if spec.agent else keys.task_queue(spec.role, spec.skills)


def serves(queue: str, role: str, skills: Collection[str]) -> bool:
    """An agent of this role and these skills can take whatever comes through this queue."""
    wanted_role, wanted_skills = keys.queue_demand(queue)
    return wanted_role in (None, role) and wanted_skills <= set(skills)


def unroutable(record: TaskRecord, agents: Collection[AgentInfo]) -> bool:
    """The task waits, and no live agent can serve it."""
    if record.state is not TaskState.QUEUED:
        return False
    return not _able(record.spec, agents)


def held_up(record: TaskRecord, agents: Collection[AgentInfo]) -> str | None:
    """Why the task waits, if each live agent that can serve it is known not to take it now."""
    able = _able(record.spec, agents)
    said = [f"{agent.agent_id} {why}" for agent in able if (why := _hindrance(agent, record.spec))]
    if record.state is not TaskState.QUEUED or len(said) < len(able):
        return None
    return "; ".join([*said[:_NAMED], f"and {len(able) - _NAMED} more"] if len(able) > _NAMED else said) or None


def _hindrance(agent: AgentInfo, spec: TaskSpec) -> str | None:
    """What keeps the agent from taking the task, if anything does but that all are busy."""
    if agent.holding:
        return f"is {agent.holding}"
    if agent.state is AgentState.LIMITED:
        return "is limited, its account rests"
    if not spec.agent or agent.current_task in (None, spec.id):  # the record was read a moment before it began
        return None
    return f"works on {agent.current_task}"


def hinders(agent: AgentInfo) -> bool:
    """It is not work that keeps the agent from taking tasks."""
    return bool(agent.holding) or agent.state is AgentState.LIMITED


def _able(spec: TaskSpec, agents: Collection[AgentInfo]) -> list[AgentInfo]:
    online = (agent for agent in agents if agent.online and not agent.retiring)
    if spec.agent:
        return [agent for agent in online if agent.agent_id == spec.agent]
    return [agent for agent in online if agent.serves(spec.role, spec.skills)]

"""Tending: what dead agents and lost processes left is brought back into the way of those who live."""

from __future__ import annotations

import logging

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import NOT_BEGUN
from torch_tasks.orchestration.attention import escalate
from torch_tasks.orchestration.followups import follow_up
from torch_tasks.tasks.dead_letters import DeadLetters
from torch_tasks.transport.deliveries import message_id

log = logging.getLogger(__name__)


def tend(fleet: Fleet) -> None:
    """Look after the whole fleet, unless somebody did so a moment ago: agent workers and node workers all call this."""
    pause_ms = int(fleet.settings.heartbeat_seconds * 500)
    if fleet.client.set(keys.TENDING, fleet.settings.node, nx=True, px=pause_ms):
        look_after(fleet)


def look_after(fleet: Fleet) -> None:
    """Do so now."""
    dead = {keys.agent_queue(agent.agent_id): agent for agent in fleet.registry.dead()}
    for queue in fleet.deliveries.in_use(dead):  # of many dead, few have anything that waits
        _free_tasks_of(dead[queue], fleet)
    for agent_id, task_id in fleet.soft_pins.due():
        _free_pinned(agent_id, task_id, fleet)
    DeadLetters(fleet).note_all_lost()
    follow_up(fleet)
    escalate(fleet)


def _free_tasks_of(agent: AgentInfo, fleet: Fleet) -> None:
    """What waits for this agent alone, and need not, goes to whoever is able."""
    queue = keys.agent_queue(agent.agent_id)
    for message in fleet.deliveries.waiting(queue):
        task_id = message_id(message)
        record = fleet.records.find(task_id) if task_id else None
        if record is None or record.state.ended or record.spec.agent == agent.agent_id:
            continue
        if fleet.deliveries.forward(queue, message, queue_for(record.spec), record.spec.priority.step):
            log.warning("%s: %s is dead, its task goes to whoever is able", record.spec.id, agent.agent_id)


def _free_pinned(agent_id: str, task_id: str, fleet: Fleet) -> None:
    """A task that its agent has not begun in time goes to whoever is able.

    One whose message is nowhere to be seen is looked for again: the agent's worker may hold it and be dead.
    """
    record = fleet.records.find(task_id)
    if record and record.state not in NOT_BEGUN:
        fleet.soft_pins.drop(agent_id, task_id)
    elif record:
        queue = keys.agent_queue(agent_id)
        for message in fleet.deliveries.waiting(queue):
            if message_id(message) == task_id and fleet.deliveries.forward(
                queue, message, queue_for(record.spec), record.spec.priority.step
            ):
                log.info("%s: %s did not begin with it, it goes to whoever is able", task_id, agent_id)
                fleet.soft_pins.drop(agent_id, task_id)

"""Housekeeping: what dead agents and lost processes left is brought back to those who live, at intervals.

Beat has a node worker do it: ``torch.housekeeping`` is one of its standing entries. Where no beat runs, the node
workers do it when it is overdue, and in a fleet without node workers the agent workers: :func:`run_if_overdue`. To do
it twice at once does no harm, for each step of a chore finds what another run has done already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch_tasks import keys
from torch_tasks.app import app
from torch_tasks.communication.policy import Policy, policy
from torch_tasks.errors import BrokerAway, InvalidSettings
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.task import NOT_BEGUN
from torch_tasks.orchestration import attention, followups
from torch_tasks.tasks.dead_letters import DeadLetters
from torch_tasks.tasks.forwarding import queued_tasks

log = logging.getLogger(__name__)


class Chore(NamedTuple):
    """One part of it."""

    name: str
    run: Callable[[Fleet], object]
    pause: float = 0.0
    """It is not done again before so many seconds have passed."""


def chores(rules: Policy | None) -> list[Chore]:
    """All there are; what the policy of conversation asks for is left out if that cannot be read."""
    found = [
        Chore("tasks of dead agents", free_tasks_of_dead_agents),
        Chore("soft pins", free_overdue_pins),
        Chore("lost dead letters", lambda of: DeadLetters(of).note_all_lost()),
    ]
    if rules:
        found += [
            Chore("follow-ups", lambda of: followups.follow_up(of, rules), followups.pause_between_looks(rules)),
            Chore("escalation", lambda of: attention.escalate(of, rules), attention.pause_between_looks(rules)),
        ]
    return found


def due(known: Sequence[Chore], begun: Mapping[str, float], now: float) -> list[Chore]:
    """The chores to be done, by when each was last begun; one that was begun in the future, by another clock, is."""
    return [chore for chore in known if not 0 <= now - begun.get(chore.name, now + 1) < chore.pause]


def run_housekeeping(of: Fleet) -> None:
    """Do each chore that is due; one that fails does not keep the others from being done."""
    try:
        rules = policy()
    except InvalidSettings as error:
        log.error("no running task is followed up, and nothing blocked is escalated: %s", error)
        rules = None
    now = of.checkins.now().timestamp()
    to_do = due(chores(rules), _begun(of), now)
    of.client.hset(keys.HOUSEKEEPING, mapping={chore.name: now for chore in to_do})
    for chore in to_do:
        try:
            chore.run(of)
        except BrokerAway:
            raise
        except Exception:
            log.exception("the %s cannot be seen to", chore.name)


def run_if_overdue(of: Fleet, patience: float) -> None:
    """Do it if it was not begun for so many seconds."""
    last = max(_begun(of).values(), default=0.0)
    if not 0 <= of.checkins.now().timestamp() - last < patience:
        run_housekeeping(of)


@app.task(name="torch.housekeeping", ignore_result=True, send_events=False)
def housekeeping() -> None:
    """Bring back what dead agents and lost processes left; beat has this done again and again."""
    try:
        run_housekeeping(fleet())
    except BrokerAway as error:
        log.warning("the housekeeping is put off: %s", error)


def _begun(of: Fleet) -> dict[str, float]:
    return {str(name): float(at) for name, at in of.client.hgetall(keys.HOUSEKEEPING).items()}


def free_tasks_of_dead_agents(of: Fleet) -> None:
    """What waits for a dead agent alone, and need not, goes to every able agent."""
    dead = {keys.agent_queue(agent.agent_id): agent for agent in of.registry.dead()}
    for queue in of.deliveries.nonempty(dead):  # of many dead, few have anything that waits
        _free_tasks_of(dead[queue], of)


def free_overdue_pins(of: Fleet) -> None:
    """What an agent was chosen for and has not begun in time goes to every able agent."""
    for agent_id, task_id in of.soft_pins.due():
        _free_pinned(agent_id, task_id, of)


def _free_tasks_of(agent: AgentInfo, fleet: Fleet) -> None:
    for task in queued_tasks(keys.agent_queue(agent.agent_id), fleet):
        if task.record.spec.agent != agent.agent_id and task.forward(fleet):
            log.warning("%s: %s is dead, its task goes to all who are able", task.record.spec.id, agent.agent_id)


def _free_pinned(agent_id: str, task_id: str, fleet: Fleet) -> None:
    """Move the task's message to the queue of all who are able.

    One whose message is nowhere to be seen is looked for again: the agent's worker may hold it and be dead.
    """
    record = fleet.records.find(task_id)
    if record and record.state not in NOT_BEGUN:
        fleet.soft_pins.drop(agent_id, task_id)
    elif record:
        for task in queued_tasks(keys.agent_queue(agent_id), fleet, only=task_id):
            if task.forward(fleet):
                log.info("%s: %s did not begin with it, it goes to all who are able", task_id, agent_id)
                fleet.soft_pins.drop(agent_id, task_id)

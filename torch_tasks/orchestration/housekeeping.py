"""Housekeeping: periodic chores that give the work of dead agents and lost processes to live agents.

Beat sends ``torch.housekeeping`` to the node workers; where that is overdue, node workers and agent workers call
:func:`run_if_overdue`. Two runs at once do no harm: each step of a chore finds what another run has done already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch_tasks import keys
from torch_tasks.app import app
from torch_tasks.broker.clock import in_ms
from torch_tasks.communication.policy import Policy, policy
from torch_tasks.errors import BrokerAway, InvalidSettings, TorchError
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.model.spawn import SpawnState
from torch_tasks.model.task import NOT_BEGUN, Failure, FailureKind, TaskRecord, TaskResult, TaskState
from torch_tasks.orchestration import attention, followups
from torch_tasks.orchestration.node_tasks import settle_spawn
from torch_tasks.orchestration.scaling import backlogs, unserved
from torch_tasks.store.task_fields import followers
from torch_tasks.tasks import set_aside, task_counts
from torch_tasks.tasks.dead_letters import DeadLetters
from torch_tasks.tasks.forwarding import queued_tasks
from torch_tasks.tasks.system_task import SystemTask
from torch_tasks.transport.envelope import message_id

log = logging.getLogger(__name__)


class Chore(NamedTuple):
    name: str
    run: Callable[[Fleet], object]
    pause: float = 0.0
    """The fewest seconds between two runs."""


def chores(rules: Policy | None) -> list[Chore]:
    """All chores; without those of the policy of conversation if it cannot be read."""
    found = [
        Chore("tasks of dead agents", free_tasks_of_dead_agents),
        Chore("soft pins", free_overdue_pins),
        Chore("agents that start", settle_spawns),
        Chore("deadlines", end_overdue_tasks),
        Chore("counts of ended tasks", count_ended_unowned),
        Chore("messages set aside", set_aside.settle_all, 2.0),
        Chore("messages of ended tasks", withdraw_ended_tasks, 10.0),
        Chore("old signatures", sign_anew, 21_600.0),
        Chore("refused letters", lambda of: of.refused.prune()),
        Chore("lost dead letters", lambda of: DeadLetters(of).note_all_lost()),
    ]
    if rules:
        found += [
            Chore("follow-ups", lambda of: followups.follow_up(of, rules), followups.pause_between_looks(rules)),
            Chore("escalation", lambda of: attention.escalate(of, rules), attention.pause_between_looks(rules)),
        ]
    return found


def due(known: Sequence[Chore], begun: Mapping[str, float], now: float) -> list[Chore]:
    """The chores to run, by when each last began; one that began in the future, by another clock, is due."""
    return [chore for chore in known if not 0 <= now - begun.get(chore.name, now + 1) < chore.pause]


def run_housekeeping(of: Fleet) -> None:
    """Run each chore that is due, also after another has failed."""
    try:
        rules = policy()
    except InvalidSettings as error:
        log.error("long-running tasks get no follow-up and blocked agents are not escalated: %s", error)
        rules = None
    now = of.checkins.now().timestamp()
    to_do = due(chores(rules), _begun(of), now)
    of.client.hset(keys.HOUSEKEEPING, mapping={chore.name: now for chore in to_do})
    for chore in to_do:
        try:
            chore.run(of)
        except BrokerAway:
            raise
        except TorchError as error:
            log.error("housekeeping of %s failed: %s", chore.name, error)
        except Exception:
            log.exception("housekeeping of %s failed", chore.name)


def run_if_overdue(of: Fleet, patience: float) -> None:
    """Run it if it has not begun for ``patience`` seconds."""
    with of.client.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.HOUSEKEEPING)
        pipe.time()
        begun, now = pipe.execute()
    last = max(map(float, begun.values()), default=0.0)
    if not 0 <= in_ms(now) / 1000 - last < patience:
        run_housekeeping(of)


@app.task(base=SystemTask, name="torch.housekeeping", is_periodic=True, ignore_result=True, send_events=False)
def housekeeping() -> None:
    try:
        run_housekeeping(fleet())
    except BrokerAway as error:
        log.warning("housekeeping is put off until beat sends it again: %s", error)


def _begun(of: Fleet) -> dict[str, float]:
    return {str(name): float(at) for name, at in of.client.hgetall(keys.HOUSEKEEPING).items()}


def free_tasks_of_dead_agents(of: Fleet) -> None:
    """Forward tasks that wait in a dead agent's queue to all able agents, unless they ask for that agent."""
    dead = {keys.agent_queue(agent.agent_id): agent for agent in of.registry.dead()}
    for queue in of.deliveries.nonempty(dead):  # of many dead agents, few have tasks waiting
        agent_id = dead[queue].agent_id
        for task in queued_tasks(queue, of):
            if task.record.spec.agent != agent_id and task.forward(of):
                log.warning("agent %s is dead: its task %s goes to all able agents", agent_id, task.record.spec.id)


def settle_spawns(of: Fleet) -> None:
    """Note which of the agents that are being started are ready or given up, also where no caller waits for them."""
    for spawned in of.spawns.all():
        if spawned.state is SpawnState.RESERVED:
            settle_spawn(spawned)


def free_overdue_pins(of: Fleet) -> None:
    """Forward tasks that their chosen agents have not begun in time to all able agents."""
    for agent_id, task_id in of.soft_pins.due():
        _free_pinned(agent_id, task_id, of)


def _free_pinned(agent_id: str, task_id: str, fleet: Fleet) -> None:
    """Forward the task and drop its pin; a pin whose message is not found stays, for a dead worker may hold it."""
    record = fleet.records.find(task_id)
    if record and record.state not in NOT_BEGUN:
        fleet.soft_pins.drop(agent_id, task_id)
    elif record:
        for task in queued_tasks(keys.agent_queue(agent_id), fleet, only=task_id):
            if task.forward(fleet):
                log.info("agent %s did not begin task %s: it goes to all able agents", agent_id, task_id)
                fleet.soft_pins.drop(agent_id, task_id)


def count_ended_unowned(of: Fleet) -> None:
    """Count for the metrics the tasks that ended while no agent had them, whichever program ended them."""
    for state, count in of.records.take_ended_unowned().items():
        task_counts.ended_without_agent(state, count)


def end_overdue_tasks(of: Fleet) -> None:
    """Fail the tasks whose deadline has passed and that no live agent has; a live one ends its own."""
    now = of.checkins.now()
    for task_id in of.records.overdue(int(now.timestamp() * 1000)):
        record = of.records.find(task_id)
        if record and not record.state.ended:
            _end_overdue(record, of)
        else:
            of.records.forget_deadline(task_id)


def _end_overdue(record: TaskRecord, fleet: Fleet) -> None:
    spec = record.spec
    assert spec.deadline
    did = "began" if record.state in NOT_BEGUN else "ended it"
    words = f"its deadline {spec.deadline.isoformat()} passed before an agent {did}"
    failure = Failure(kind=FailureKind.DEADLINE, message=words)
    result = TaskResult(task_id=spec.id, status=TaskState.FAILED, attempts=record.attempts, error=failure)
    if account := fleet.records.end_unowned(result):
        log.warning("task %s failed: %s", spec.id, words)
        set_aside.withdraw(fleet.records.get(spec.id), fleet)
        set_aside.settle(followers(account), fleet)


def sign_anew(of: Fleet) -> None:
    """Sign anew what has waited so long in a queue that its signature would expire."""
    agents = (keys.agent_queue(agent.agent_id) for agent in of.registry.agents())
    for queue in of.deliveries.nonempty({keys.SYSTEM_QUEUE, *agents, *(backlog.queue for backlog in backlogs(of))}):
        if count := of.deliveries.sign_anew(queue):
            log.info("%d messages in %s have waited long and were signed anew", count, queue)


def withdraw_ended_tasks(of: Fleet) -> None:
    """Take the messages of ended tasks out of the queues that no live agent reads; elsewhere agents drop them."""
    for queue in unserved(backlogs(of), of.registry.agents()):
        ids = [task_id for task_id in map(message_id, of.deliveries.waiting(queue)) if task_id]
        for record in filter(None, map(of.records.find, ids)):
            if record.state.ended:
                set_aside.withdraw(record, of)

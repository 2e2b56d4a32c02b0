"""What is whose: the tasks, agents, messages and check-ins that are a caller's own."""

from __future__ import annotations

from torch_tasks.broker.connection import broker_errors
from torch_tasks.caller import Caller
from torch_tasks.fleet import fleet
from torch_tasks.model.asker import Asker
from torch_tasks.model.task import HELD
from torch_tasks.security.rights import CONCERNS_ALL, EVERYBODY, Right, Subject
from torch_tasks.settings import settings


def whose_else(who: Caller, right: Right, subject: Subject) -> str:
    """Why what a request is about is not the caller's own; empty if it is."""
    if subject == Subject():
        return "it is about the whole fleet" if right in CONCERNS_ALL else ""
    with broker_errors(settings().broker()):
        reasons = (_task(who, subject.task), _agent(who, subject.agent), _party(who, subject.party))
    return "; ".join(filter(None, reasons))


def role_of(agent: str) -> str | None:
    """The role of an agent, as the registry has it."""
    with broker_errors(settings().broker()):
        info = fleet().registry.entry(agent)
    return info.role if info else None


def _task(who: Caller, task_id: str | None) -> str:
    """A task is its agent's, or before one has it that of the agent it is for; and who enqueued it."""
    if task_id is None:
        return ""
    record = fleet().records.find(task_id)
    if record is None:
        return ""  # who carries it out says that there is none
    if record.enqueued_by and record.enqueued_by.key == Asker.of(who).key:
        return ""
    agent = record.agent if record.state in HELD else record.spec.agent
    if record.state.ended:
        agent = record.agent or record.spec.agent
    if who.agent and who.agent == agent:
        return ""
    by = record.enqueued_by.name if record.enqueued_by else "somebody"
    return f"task {task_id} belongs to {agent or 'no agent yet'} and was enqueued by {by}"


def _agent(who: Caller, agent: str | None) -> str:
    """An agent is its own, and that of the agent that spawned it."""
    if agent is None or (who.agent and who.agent == agent):
        return ""
    if agent == EVERYBODY:
        return "it is about more agents than one"
    info = fleet().registry.entry(agent)
    parents = {info.parent} if info else set()
    parents |= {spawned.request.parent for spawned in fleet().spawns.get_many([agent])}
    if who.agent and who.agent in parents:
        return ""
    spawned_by = next(iter(parents - {None}), None)
    return f"agent {agent} is {f'a child of {spawned_by}' if spawned_by else 'the child of no agent'}"


def _party(who: Caller, party: str | None) -> str:
    if party == EVERYBODY:
        return "it is about what all say"
    return "" if party in (None, who.name) else f"that is {party}'s"

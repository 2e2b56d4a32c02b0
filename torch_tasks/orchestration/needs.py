"""Needs: what in the fleet stands still until a person does something."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import Model
from torch_tasks.model.node import KeptState
from torch_tasks.orchestration.escalation import waiting_tasks
from torch_tasks.orchestration.scaling import backlogs, unserved
from torch_tasks.transport.wire import message_id

_HELD_UP = (AgentState.WAITING, AgentState.LOGIN)
_PATIENCE = 12
"""So many heartbeats a task may wait for an agent to come, which is perhaps being started."""


class NeedKind(StrEnum):
    """What is the matter."""

    QUESTION = "question"
    """A task waits for an answer."""
    LOGIN = "login"
    """An agent's program wants a login."""
    DEAD = "dead"
    """A task is out of tries."""
    DOWN = "down"
    """An agent is in quarantine: its worker did nothing but die."""
    UNROUTABLE = "unroutable"
    """Tasks wait for whom no live agent is."""
    LIMITED = "limited"
    """An account rests. Nothing has to be done, but whoever wants more done meanwhile needs another account."""


class Need(Model):
    """One thing that a person should know of now."""

    id: str
    """The same for the same matter, whoever finds it; a new question of the same task is a new matter."""
    kind: NeedKind
    text: str
    do: str
    """The command that helps."""
    agent: str = ""
    task: str = ""
    account: str = ""


def needs(fleet: Fleet) -> list[Need]:
    """All there are at this moment."""
    agents = fleet.registry.agents()
    of_agents = (*_questions(fleet, agents), *_logins(agents), *_down(fleet))
    return [*of_agents, *_dead(fleet), *_unroutable(fleet, agents), *_limited(fleet)]


def _questions(fleet: Fleet, agents: list[AgentInfo]) -> Iterator[Need]:
    held_up = [info for info in agents if info.online and info.state in _HELD_UP]
    for info, record, since in waiting_tasks(fleet, held_up):
        if asked := record.question:
            task, numbered = record.spec.id, (f"{number} {text}" for number, text in enumerate(asked.choices, 1))
            choices = f" ({' | '.join(numbered)})" if asked.choices else ""
            yield Need(
                id=f"question {task} {since.isoformat()}",
                kind=NeedKind.QUESTION,
                text=f"{info.agent_id} asks in task {task}: {asked.text}{choices}",
                do=f"torch-tasks answer {task} CHOICE",
                agent=info.agent_id,
                task=task,
            )


def _logins(agents: list[AgentInfo]) -> Iterator[Need]:
    for info in agents:
        if info.online and info.state is AgentState.LOGIN:
            yield Need(
                id=f"login {info.agent_id}",
                kind=NeedKind.LOGIN,
                text=f"{info.agent_id} ({info.kind} on {info.node}) wants a login",
                do=f"torch-tasks attach {info.agent_id}",
                agent=info.agent_id,
                task=info.current_task or "",
            )


def _dead(fleet: Fleet) -> Iterator[Need]:
    ids = sorted(fleet.deliveries.dead_ids())
    for task, outline in zip(ids, fleet.records.outlines(ids), strict=True):
        yield Need(
            id=f"dead {task} {outline.revision if outline else 0}",
            kind=NeedKind.DEAD,
            text=f"task {task} is dead: it was tried as often as it may be",
            do=f"torch-tasks dead show {task}",
            task=task,
        )


def _down(fleet: Fleet) -> Iterator[Need]:
    for node in fleet.nodes.nodes():
        for kept in node.agents:
            if node.online and kept.state is KeptState.QUARANTINED:
                yield Need(
                    id=f"down {kept.agent_id}",
                    kind=NeedKind.DOWN,
                    text=f"{kept.agent_id} on {node.name} does not stay alive: {kept.reason or 'it does not say why'}",
                    do=f"torch-tasks logs {kept.agent_id}",
                    agent=kept.agent_id,
                )


def _unroutable(fleet: Fleet, agents: list[AgentInfo]) -> Iterator[Need]:
    latest = _PATIENCE * fleet.settings.heartbeat_seconds
    waiting = [one for one in backlogs(fleet) if one.oldest_seconds >= latest]
    for queue in unserved(waiting, agents):
        ids = filter(None, map(message_id, fleet.deliveries.waiting(queue)))
        # The message of a task that was cancelled lies there until somebody reads it.
        count = sum(outline is not None and not outline.state.ended for outline in fleet.records.outlines(ids))
        role, skills = keys.queue_demand(queue)
        if count:
            yield Need(
                id=f"unroutable {queue}",
                kind=NeedKind.UNROUTABLE,
                text=f"tasks wait ({count}), and no live agent serves {'+'.join((role or keys.ANY, *sorted(skills)))}",
                do="torch-tasks tasks --state queued",
            )


def _limited(fleet: Fleet) -> Iterator[Need]:
    for account in fleet.budgets.accounts():
        if until := fleet.account(account).rests_until():
            yield Need(
                id=f"limited {account}",
                kind=NeedKind.LIMITED,
                text=f"the usage limit of account {account} is reached; it rests until {until:%Y-%m-%d %H:%M} UTC",
                do="torch-tasks agents",
                account=account,
            )

"""What stands still: what a person has to do, and what has been blocked so long that its manager hears of it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from torch_tasks import keys
from torch_tasks.caller import OPERATOR
from torch_tasks.communication.orchestrator import NovaOrchestrator
from torch_tasks.communication.policy import Policy, manager_of
from torch_tasks.errors import BrokerUnreachable, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import Model
from torch_tasks.model.message import MessageKind, MessageRecord
from torch_tasks.model.node import KeptState
from torch_tasks.model.task import HistoryEntry, TaskRecord, TaskState
from torch_tasks.orchestration.followups import standing_still
from torch_tasks.orchestration.scaling import backlogs, unserved
from torch_tasks.transport.deliveries import message_id

log = logging.getLogger(__name__)

_MOST_SECONDS = 30.0
_NOTHING = frozenset({"", "no", "none", "nothing", "-", "n/a"})


class Blockage(NamedTuple):
    """One thing that has been blocked since that moment."""

    agent: str
    subject: str
    since: datetime
    text: str

    @property
    def message_id(self) -> str:
        """The same for the same case, whoever finds it: so it is one message."""
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.agent} {self.subject} {self.since.isoformat()}").hex


def pause_between_looks(rules: Policy) -> float:
    """How many seconds pass between two looks for what is blocked."""
    return min(_MOST_SECONDS, rules.blocked_minutes * 60 / 4)


def escalate(fleet: Fleet, rules: Policy) -> None:
    """Bring what is blocked before the manager, once."""
    seconds = rules.blocked_minutes * 60
    if not rules.enabled or not seconds:
        return
    agents = fleet.registry.agents()
    latest = fleet.checkins.now() - timedelta(seconds=seconds)
    found = (*_waiting(fleet, agents), *_blocked(fleet, agents), *_standing_still(fleet))
    cases = [case for case in found if case.since <= latest]
    for case, known in zip(cases, fleet.inboxes.states(case.message_id for case in cases), strict=True):
        if known is None:
            manager = manager_of(agents, rules.hub.manager, case.agent)
            _escalate(case, manager.agent_id if manager else OPERATOR)


def waiting_tasks(fleet: Fleet, agents: Iterable[AgentInfo]) -> Iterator[tuple[AgentInfo, TaskRecord, datetime]]:
    """The tasks of these agents that wait for somebody, and since when for what they wait for now."""
    for info in agents:
        record = fleet.records.find(info.current_task) if info.current_task else None
        if record is None or record.state is not TaskState.WAITING or record.agent != info.agent_id:
            continue
        if since := _since(fleet.records.history(record.spec.id)):
            yield info, record, since


def _waiting(fleet: Fleet, agents: Iterable[AgentInfo]) -> Iterator[Blockage]:
    for info, record, since in waiting_tasks(fleet, agents):
        asked = record.question
        why = asked.text if asked else record.note or "it does not say for what"
        choices = f"\nChoices: {' | '.join(asked.choices)}" if asked and asked.choices else ""
        text = f"Its task {record.spec.id} waits: {why}{choices}\nAnswer it with: torch-tasks answer {record.spec.id} …"
        yield Blockage(info.agent_id, record.spec.id, since, text)


def _since(history: list[HistoryEntry]) -> datetime | None:
    """Since when the task has waited for what it waits for now."""
    since = None
    for entry in reversed(history):
        if (entry.state, entry.note) != (TaskState.WAITING, history[-1].note):
            break
        since = entry.at
    return since


def _blocked(fleet: Fleet, agents: Iterable[AgentInfo]) -> Iterator[Blockage]:
    """The agents that said in their last status that they are blocked."""
    names = {info.agent_id for info in agents}
    for record in fleet.inboxes.last_statuses():
        hindrance = _hindrance(record)
        if hindrance and record.accepted_at and record.message.sender in names:
            text = f"In its last status it is blocked: {hindrance}"
            yield Blockage(record.message.sender, record.message.id, record.accepted_at, text)


def _standing_still(fleet: Fleet) -> Iterator[Blockage]:
    """The tasks that run and of which nothing moves."""
    for one in standing_still(fleet):
        text = f"Its task {one.task} runs, and nothing moves: neither its pane nor its files, nor does it report."
        yield Blockage(one.agent, one.task, one.since, text)


def _hindrance(record: MessageRecord) -> str:
    """What a status says that blocks its sender; empty if nothing does."""
    for line in record.message.message.splitlines():
        word, _, said = line.strip().partition(":")
        if word.casefold() == "blocked":
            return "" if said.strip().rstrip(".!").casefold() in _NOTHING else said.strip()
    return ""


def _escalate(case: Blockage, manager: str) -> None:
    text = f"{case.agent} has been blocked since {case.since:%Y-%m-%d %H:%M:%S} UTC. {case.text}"
    try:
        NovaOrchestrator(case.agent).send_message(manager, text, kind=MessageKind.ESCALATION, id=case.message_id)
    except BrokerUnreachable:
        raise
    except TorchError as error:  # the manager's inbox is full: the next look tries again
        log.warning("%s is blocked, and %s cannot be told: %s", case.agent, manager, error)
    else:
        log.warning("%s is blocked: brought before %s as message %s", case.agent, manager, case.message_id)


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

"""Blocked work: what a person has to do, and what has been blocked for so long that a manager is notified."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Self

from pydantic import AwareDatetime

from torch_tasks import keys
from torch_tasks.broker.refused import RefusedLetter
from torch_tasks.caller import OPERATOR
from torch_tasks.communication.messenger import Messenger
from torch_tasks.communication.policy import Policy, manager_of
from torch_tasks.errors import BrokerUnreachable, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.budget import Budget, BudgetLine, amount_in_words
from torch_tasks.model.checkin import CheckinRecord, CheckinState, SlotOutcome
from torch_tasks.model.durations import local_time
from torch_tasks.model.fields import Model
from torch_tasks.model.message import MessageKind, MessageRecord
from torch_tasks.model.node import KeptState, NodeInfo
from torch_tasks.model.standing_backup import LastBackup
from torch_tasks.model.task import TaskRecord, TaskState
from torch_tasks.orchestration.followups import FollowedTask, standing_still, tasks_of
from torch_tasks.orchestration.gone import gone_agents
from torch_tasks.orchestration.scaling import backlogs, unserved
from torch_tasks.store.task_outcomes import Outline
from torch_tasks.tasks.requests import waiting_since
from torch_tasks.transport.envelope import message_id

log = logging.getLogger(__name__)

_MOST_SECONDS = 30.0
_HELD_UP = (AgentState.WAITING, AgentState.LOGIN)
_PATIENCE = 12
"""How many heartbeats a task may wait for an agent, which is perhaps starting."""
_NOTHING = frozenset({"", "no", "none", "nothing", "-", "n/a"})


class WaitingTask(NamedTuple):
    agent: AgentInfo
    record: TaskRecord
    since: datetime


def waiting_tasks(fleet: Fleet, agents: Iterable[AgentInfo]) -> Iterator[WaitingTask]:
    for record, info in tasks_of(fleet, agents, TaskState.WAITING):
        if since := waiting_since(fleet.records.history(record.spec.id)):
            yield WaitingTask(info, record, since)


# ── what a manager has to know ───────────────────────────────────────────────────────────────────────────────────────


class Blockage(NamedTuple):
    """An agent that is blocked, and by what."""

    agent: str
    subject: str
    since: datetime
    text: str

    @property
    def message_id(self) -> str:
        """The same whichever process finds the blockage, so that it is one message."""
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.agent} {self.subject} {self.since.isoformat()}").hex


def pause_between_looks(rules: Policy) -> float:
    return min(_MOST_SECONDS, rules.blocked_minutes * 60 / 4)


def escalate(fleet: Fleet, rules: Policy) -> None:
    """Notify the manager of each blockage, once."""
    seconds = rules.blocked_minutes * 60
    if not rules.enabled or not seconds:
        return
    agents = fleet.registry.agents()
    latest = fleet.checkins.now() - timedelta(seconds=seconds)
    found = (
        *map(blockage_of_waiting, waiting_tasks(fleet, agents)),
        *blockages_reported(fleet.inboxes.last_statuses(), {info.agent_id for info in agents}),
        *map(blockage_of_standing_still, standing_still(fleet)),
    )
    blocked = [one for one in found if one.since <= latest]
    for one, known in zip(blocked, fleet.inboxes.states(one.message_id for one in blocked), strict=True):
        if known is None:
            manager = manager_of(agents, rules.hub.manager, one.agent)
            _escalate(one, manager.agent_id if manager else OPERATOR)


def blockage_of_waiting(task: WaitingTask) -> Blockage:
    asked, task_id = task.record.question, task.record.spec.id
    why = asked.text if asked else task.record.note or "it does not say for what"
    choices = f"\nChoices: {' | '.join(asked.numbered)}" if asked and asked.choices else ""
    text = f"Its task {task_id} waits: {why}{choices}\nAnswer it with: torch-tasks answer {task_id} …"
    return Blockage(task.agent.agent_id, task_id, task.since, text)


def blockages_reported(statuses: Iterable[MessageRecord], agents: Collection[str]) -> Iterator[Blockage]:
    """What blocks these agents according to their last statuses."""
    for record in statuses:
        obstacle = obstacle_in(record.message.message)
        if obstacle and record.accepted_at and record.message.sender in agents:
            text = f"Its last status says it is blocked: {obstacle}"
            yield Blockage(record.message.sender, record.message.id, record.accepted_at, text)


def blockage_of_standing_still(task: FollowedTask) -> Blockage:
    text = f"Its task {task.task} runs without progress: no change in its pane or files, and no report."
    return Blockage(task.agent, task.task, task.since, text)


def obstacle_in(status: str) -> str:
    """What blocks the sender of this status; empty if nothing does."""
    for line in status.splitlines():
        word, _, rest = line.strip().partition(":")
        if word.casefold() == "blocked":
            return "" if rest.strip().rstrip(".!").casefold() in _NOTHING else rest.strip()
    return ""


def _escalate(one: Blockage, manager: str) -> None:
    text = f"{one.agent} has been blocked since {local_time(one.since)}. {one.text}"
    try:
        Messenger(one.agent).send(manager, text, kind=MessageKind.ESCALATION, id=one.message_id)
    except BrokerUnreachable:
        raise
    except TorchError as error:  # the manager's inbox is full: the next look tries again
        log.warning("agent %s is blocked, and the message about it to %s failed: %s", one.agent, manager, error)
    else:
        log.warning("agent %s is blocked: %s gets message %s", one.agent, manager, one.message_id)


# ── what a person has to do ──────────────────────────────────────────────────────────────────────────────────────────


class NeedKind(StrEnum):
    QUESTION = "question"
    """A task waits for an answer."""
    LOGIN = "login"
    """An agent's program wants a login."""
    HELD_UP = "held up"
    """An agent's program waits for a person before it takes a task or goes on with one."""
    DEAD = "dead"
    """A task is out of tries."""
    DOWN = "down"
    """An agent is in quarantine: its worker kept dying."""
    UNROUTABLE = "unroutable"
    """Tasks wait, and no live agent is able to take them."""
    CHECKIN = "checkin"
    """A check-in reaches no agent."""
    LIMITED = "limited"
    """An account rests. It needs no action, but more work meanwhile takes another account."""
    OVER_BUDGET = "over budget"
    """An account has used up what it may use on a day. A greater limit lets it go on; else it goes on the next day."""
    BACKUP = "backup"
    """A machine could not back the fleet up, or a machine is missing in its last backup."""


PASSING = frozenset({NeedKind.LIMITED, NeedKind.OVER_BUDGET})
"""What is over by itself after a while."""


class Need(Model):
    """One thing that a person should know of now."""

    id: str
    """Kind and subject: the same whichever process finds it; a task's next question is another subject."""
    kind: NeedKind
    text: str
    do: str
    """The command that helps."""
    agent: str = ""
    task: str = ""
    account: str = ""
    checkin: str = ""
    since: AwareDatetime | None = None
    """When the question was asked."""
    role: str = ""
    skills: tuple[str, ...] = ()
    """What an agent must have that serves the tasks that no agent serves."""
    is_seen: bool = False
    """Whether somebody has seen it, so that no further channel tells of it."""

    @classmethod
    def of(cls, kind: NeedKind, subject: str, text: str, do: str, **about: Any) -> Self:
        """``about`` names the agent, task or account, and what else is known of it."""
        return cls(id=f"{kind} {subject}", kind=kind, text=text, do=do, **about)


def needs(fleet: Fleet) -> list[Need]:
    """All that a person should know of now."""
    agents, nodes = fleet.registry.agents(), fleet.nodes.nodes()
    held_up = [info for info in agents if info.online and info.state in _HELD_UP]
    dead = sorted(fleet.deliveries.dead_letter_ids())
    accounts = fleet.budgets.accounts()
    resting = [(name, until) for name in accounts if (until := fleet.account(name).rests_until())]
    return [
        *filter(None, map(question_need, waiting_tasks(fleet, held_up))),
        *held_up_needs(agents),
        *down_needs(nodes),
        *dead_needs(fleet, dead),
        *(unroutable_need(queue, count) for queue, count in _unroutable(fleet, agents)),
        *checkin_needs(fleet.checkins.records(), _present(fleet, agents, nodes)),
        *(limited_need(account, until) for account, until in resting),
        *over_budget_needs(fleet.budgets.lines(accounts)),
        *backup_needs(fleet.standing_backups.all()),
    ]


def question_need(task: WaitingTask) -> Need | None:
    """The task's question; None if it waits for something else."""
    asked, task_id = task.record.question, task.record.spec.id
    if asked is None:
        return None
    agent, subject = task.agent.agent_id, f"{task_id} {task.since.isoformat()}"
    text, do = f"{agent} asks in task {task_id}: {asked.in_words}", f"torch-tasks answer {task_id} CHOICE"
    return Need.of(NeedKind.QUESTION, subject, text, do, agent=agent, task=task_id, since=task.since)


def held_up_needs(agents: Iterable[AgentInfo]) -> Iterator[Need]:
    """What agents' programs ask of a person, other than their tasks' questions."""
    for info in agents:
        wants_login = info.state is AgentState.LOGIN
        if info.online and (wants_login or info.is_held_up):
            kind = NeedKind.LOGIN if wants_login else NeedKind.HELD_UP
            wants = "wants a login" if wants_login else f"is held up: {info.asks}"
            agent, task = info.agent_id, info.current_task or ""
            text = f"{agent} ({info.kind} on {info.node}) {wants}"
            yield Need.of(kind, agent, text, f"torch-tasks attach {agent}", agent=agent, task=task)


def down_needs(nodes: Iterable[NodeInfo]) -> Iterator[Need]:
    """The agents that online nodes have in quarantine."""
    for node in nodes:
        for kept in node.agents:
            if node.online and kept.state is KeptState.QUARANTINED:
                agent = kept.agent_id
                text = f"{agent} on {node.name} does not stay alive: {kept.reason or 'no reason is known'}"
                yield Need.of(NeedKind.DOWN, agent, text, f"torch-tasks logs {agent}", agent=agent)


def dead_needs(fleet: Fleet, dead: Sequence[str]) -> Iterator[Need]:
    if dead:
        refused = fleet.refused.all()
        for task, outline in zip(dead, fleet.records.outlines(dead), strict=True):
            yield dead_need(task, outline, refused.get(task))


def dead_need(task: str, outline: Outline | None, refused: RefusedLetter | None = None) -> Need:
    subject, text = f"{task} {outline.revision if outline else 0}", f"task {task} is dead: it has no tries left"
    if refused:
        text = f"{task} could not be read where it lay ({refused.place}): {refused.why}"
    return Need.of(NeedKind.DEAD, subject, text, f"torch-tasks dead show {task}", task=task)


def unroutable_need(queue: str, count: int) -> Need:
    role, skills = keys.queue_demand(queue)
    text = f"tasks wait ({count}), and no live agent serves {'+'.join((role or keys.ANY, *sorted(skills)))}"
    do = "torch-tasks tasks --state queued"
    return Need.of(NeedKind.UNROUTABLE, queue, text, do, role=role or "", skills=tuple(sorted(skills)))


def _present(fleet: Fleet, agents: Collection[AgentInfo], nodes: Iterable[NodeInfo]) -> set[str] | None:
    """Those of these agents that are not gone; None while a restarted broker may not know all of them yet."""
    if not fleet.registry.has_heard_all():
        return None
    return {info.agent_id for info in agents} - gone_agents(fleet, agents, nodes)


def checkin_needs(records: Iterable[CheckinRecord], present: Collection[str] | None) -> Iterator[Need]:
    """The check-ins that are for an agent that is gone, and those that reached no agent when they last came up."""
    for record in records:
        agent, last = record.checkin.target.receiver, record.last
        is_lost = present is not None and agent and agent != OPERATOR and agent not in present
        if is_lost and record.state is CheckinState.ACTIVE:
            why = f"{agent} is gone"
        elif last and last.outcome is SlotOutcome.REFUSED:
            why = last.note
        else:
            continue
        name = record.checkin.id
        text = f"check-in {name} ({record.checkin.title}) reaches no agent: {why}"
        yield Need.of(NeedKind.CHECKIN, name, text, f"torch-tasks checkin show {name}", agent=agent or "", checkin=name)


def limited_need(account: str, until: datetime) -> Need:
    text = f"the usage limit of account {account} is reached; it rests until {local_time(until)}"
    return Need.of(NeedKind.LIMITED, account, text, "torch-tasks agents", account=account)


def over_budget_needs(lines: Iterable[BudgetLine]) -> Iterator[Need]:
    """The accounts that wait for another day."""
    for line in lines:
        if line.exhausted and line.limit is not None and line.name.endswith("_per_day"):
            limit = amount_in_words(line.name, Budget(**{line.name: line.limit}).counted_limit(line.name))
            text = f"account {line.account} has used its {limit}; it goes on at {local_time(line.until)}"
            subject = f"{line.account} {line.name} {line.until.date()}"
            yield Need.of(NeedKind.OVER_BUDGET, subject, text, "torch-tasks budget", account=line.account)


def backup_needs(backups: Iterable[LastBackup]) -> Iterator[Need]:
    """The machines whose last standing backup failed, or lacks something."""
    for last in backups:
        if last.trouble:
            text = f"the backup of {local_time(last.at)} on {last.node} failed or lacks something: {last.trouble}"
            yield Need.of(NeedKind.BACKUP, last.node, text, "torch-tasks backup FILE", since=last.at)


def _unroutable(fleet: Fleet, agents: list[AgentInfo]) -> Iterator[tuple[str, int]]:
    """The queues that no live agent reads, and how many tasks have waited in them for long."""
    latest = _PATIENCE * fleet.settings.heartbeat_seconds
    waiting = [one for one in backlogs(fleet) if one.oldest_seconds >= latest]
    for queue in unserved(waiting, agents):
        ids = filter(None, map(message_id, fleet.deliveries.waiting(queue)))
        # The message of a cancelled task stays there until an agent reads it.
        count = sum(outline is not None and not outline.state.ended for outline in fleet.records.outlines(ids))
        if count:
            yield queue, count

"""Escalation: what has been blocked for too long is brought before the manager, once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from torch_tasks import keys
from torch_tasks.communication.orchestrator import NovaOrchestrator
from torch_tasks.communication.policy import policy
from torch_tasks.errors import BrokerUnreachable, InvalidSettings, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.message import MessageKind, MessageRecord
from torch_tasks.model.task import HistoryEntry, TaskRecord, TaskState
from torch_tasks.orchestration.followups import standing_still
from torch_tasks.orchestration.team import manager_of

log = logging.getLogger(__name__)

_MOST_SECONDS = 30.0
_NOTHING = frozenset({"", "no", "none", "nothing", "-", "n/a"})


class Case(NamedTuple):
    """One thing that has been blocked since that moment."""

    agent: str
    subject: str
    since: datetime
    text: str

    @property
    def message_id(self) -> str:
        """The same for the same case, whoever finds it: so it is one message."""
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.agent} {self.subject} {self.since.isoformat()}").hex


def escalate(fleet: Fleet) -> None:
    """Bring what is blocked before the manager, unless somebody looked a moment ago."""
    try:
        rules = policy()
    except InvalidSettings as error:
        log.error("nothing blocked is brought before anybody: %s", error)
        return
    seconds = rules.blocked_minutes * 60
    if not rules.enabled or not seconds:
        return
    pause_ms = max(1, int(min(_MOST_SECONDS, seconds / 4) * 1000))
    if not fleet.client.set(keys.ESCALATING, fleet.settings.node, nx=True, px=pause_ms):
        return
    agents = fleet.registry.agents()
    latest = datetime.fromtimestamp(fleet.client.time()[0] - seconds, UTC)
    found = (*_waiting(fleet, agents), *_blocked(fleet, agents), *_standing_still(fleet))
    cases = [case for case in found if case.since <= latest]
    for case, known in zip(cases, fleet.inboxes.states(case.message_id for case in cases), strict=True):
        if known is None:
            _tell(case, manager_of(agents, rules.hub.manager, case.agent))


def waiting_tasks(fleet: Fleet, agents: Iterable[AgentInfo]) -> Iterator[tuple[AgentInfo, TaskRecord, datetime]]:
    """The tasks of these agents that wait for somebody, and since when for what they wait for now."""
    for info in agents:
        record = fleet.records.find(info.current_task) if info.current_task else None
        if record is None or record.state is not TaskState.WAITING or record.agent != info.agent_id:
            continue
        if since := _since(fleet.records.history(record.spec.id)):
            yield info, record, since


def _waiting(fleet: Fleet, agents: Iterable[AgentInfo]) -> Iterator[Case]:
    for info, record, since in waiting_tasks(fleet, agents):
        asked = record.question
        why = asked.text if asked else record.note or "it does not say for what"
        choices = f"\nChoices: {' | '.join(asked.choices)}" if asked and asked.choices else ""
        text = f"Its task {record.spec.id} waits: {why}{choices}\nAnswer it with: torch-tasks answer {record.spec.id} …"
        yield Case(info.agent_id, record.spec.id, since, text)


def _since(history: list[HistoryEntry]) -> datetime | None:
    """Since when the task has waited for what it waits for now."""
    since = None
    for entry in reversed(history):
        if (entry.state, entry.note) != (TaskState.WAITING, history[-1].note):
            break
        since = entry.at
    return since


def _blocked(fleet: Fleet, agents: Iterable[AgentInfo]) -> Iterator[Case]:
    """The agents that said in their last status that they are blocked."""
    names = {info.agent_id for info in agents}
    for record in fleet.inboxes.last_statuses():
        hindrance = _hindrance(record)
        if hindrance and record.accepted_at and record.message.sender in names:
            text = f"In its last status it is blocked: {hindrance}"
            yield Case(record.message.sender, record.message.id, record.accepted_at, text)


def _standing_still(fleet: Fleet) -> Iterator[Case]:
    """The tasks that run and of which nothing moves."""
    for one in standing_still(fleet):
        text = f"Its task {one.task} runs, and nothing moves: neither its pane nor its files, nor does it report."
        yield Case(one.agent, one.task, one.since, text)


def _hindrance(record: MessageRecord) -> str:
    """What a status says that blocks its sender; empty if nothing does."""
    for line in record.message.message.splitlines():
        word, _, said = line.strip().partition(":")
        if word.casefold() == "blocked":
            return "" if said.strip().rstrip(".!").casefold() in _NOTHING else said.strip()
    return ""


def _tell(case: Case, manager: str) -> None:
    text = f"{case.agent} has been blocked since {case.since:%Y-%m-%d %H:%M:%S} UTC. {case.text}"
    try:
        NovaOrchestrator(case.agent).send_message(manager, text, kind=MessageKind.ESCALATION, id=case.message_id)
    except BrokerUnreachable:
        raise
    except TorchError as error:  # the manager's inbox is full: the next look tries again
        log.warning("%s is blocked, and %s cannot be told: %s", case.agent, manager, error)
    else:
        log.warning("%s is blocked: brought before %s as message %s", case.agent, manager, case.message_id)

"""The operation that finds names: for abbreviated ids, for the shell that completes, and for what was mistyped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from pydantic import Field

from torch_tasks.caller import caller
from torch_tasks.fleet import fleet
from torch_tasks.model.fields import Model
from torch_tasks.model.message import MessageRecord
from torch_tasks.model.routing import believed_state
from torch_tasks.operations.operation import Request, operation
from torch_tasks.security.rights import Right
from torch_tasks.settings import settings

_MOST = 100


class NameSort(StrEnum):
    TASK = "task"
    MESSAGE = "message"
    CHECKIN = "check-in"
    AGENT = "agent"
    ROLE = "role"
    SKILL = "skill"
    NODE = "node"


class FindNames(Request):
    sort: NameSort = Field(description="Names of what.")
    beginning: str = Field("", description="Only names that begin so.")


class KnownName(Model):
    name: str
    about: str = ""
    """A word on what it is."""


@operation("name.find", Right.LOOK, needs_broker=False)
def find(asked: FindNames) -> list[KnownName]:
    """The names of one sort that begin so; of tasks and messages the latest, of messages an agent's own."""
    found = _FOUND[asked.sort](asked.beginning)
    return [one for one in found if one.name.startswith(asked.beginning)][:_MOST]


def _tasks(beginning: str) -> Iterable[KnownName]:
    records = fleet().records
    if not beginning:
        return [
            KnownName(name=one.spec.id, about=f"{believed_state(one)}: {one.spec.title}")
            for one in records.latest(_MOST)
        ]
    ids = records.ids_beginning(beginning)[:_MOST]
    found = zip(ids, records.find_all(ids), strict=True)
    return [KnownName(name=name, about=f"{one.state}: {one.spec.title}" if one else "") for name, one in found]


def _messages(beginning: str) -> Iterable[KnownName]:
    inboxes, own = fleet().inboxes, caller().agent
    if beginning:
        found: Iterable[MessageRecord | None] = inboxes.records(inboxes.ids_beginning(beginning)[:_MOST])
    else:
        found = reversed(inboxes.latest(own, limit=_MOST))
    return [
        KnownName(name=one.message.id, about=f"{one.state}: {one.message.title}")
        for one in found
        if one and own in (None, one.message.sender, one.message.target)
    ]


def _checkins(beginning: str) -> Iterable[KnownName]:
    known = (one.checkin for one in fleet().checkins.records())
    return [KnownName(name=one.id, about=f"for {one.target}: {one.title}") for one in known]


def _agents(beginning: str) -> Iterable[KnownName]:
    known = fleet().registry.agents()
    states = {one.agent_id: one.state if one.online else one.status for one in known}
    return [KnownName(name=one.agent_id, about=f"{one.role}, {states[one.agent_id]}") for one in known]


def _roles(beginning: str) -> Iterable[KnownName]:
    """The roles of the agents that are or were there, and of those in torch.toml."""
    declared = {one.role for one in (*settings().agents, *settings().pools)}
    return [KnownName(name=one) for one in sorted(declared | {info.role for info in fleet().registry.agents()})]


def _skills(beginning: str) -> Iterable[KnownName]:
    return [KnownName(name=one) for one in fleet().registry.skills()]


def _nodes(beginning: str) -> Iterable[KnownName]:
    return [KnownName(name=one.name, about=str(one.status)) for one in fleet().nodes.nodes()]


_FOUND: dict[NameSort, Callable[[str], Iterable[KnownName]]] = {
    NameSort.TASK: _tasks,
    NameSort.MESSAGE: _messages,
    NameSort.CHECKIN: _checkins,
    NameSort.AGENT: _agents,
    NameSort.ROLE: _roles,
    NameSort.SKILL: _skills,
    NameSort.NODE: _nodes,
}

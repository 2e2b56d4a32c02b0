"""The rights that operations take, and what a request is about."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Right(StrEnum):
    """What a caller is allowed to do."""

    LOOK = "look"
    """See tasks, agents, nodes, check-ins, and the fleet's health."""
    ENQUEUE = "enqueue"
    GRANT = "grant"
    """Enqueue a task whose agent gets every permission that its program asks for."""
    CHANGE = "change"
    """Cancel a task, or hand it over."""
    ANSWER = "answer"
    """Decide what an agent's program asks a person: a permission, a question."""
    REVIVE = "revive"
    """Replay or drop dead letters."""
    REPORT = "report"
    """Report that a task is done, has failed, or goes on."""
    SEND = "send"
    CROSS = "cross"
    """Send a message or a task to an agent of another fleet, as the bearer of this fleet's token there."""
    READ = "read"
    """Read an inbox, and the messages from and to a party."""
    SCHEDULE = "schedule"
    """Add, change and remove check-ins."""
    SHARE = "share"
    """Notes, claims, help and teams: how agents work together."""
    WATCH = "watch"
    """See what an agent's terminal shows."""
    TYPE = "type"
    """Take an agent's terminal over, and type into it."""
    SPAWN = "spawn"
    RETIRE = "retire"
    """End an agent, or release it from quarantine."""
    HOLD = "hold"
    """Pause and resume agents, drain nodes, stop and start the fleet."""
    BUDGET = "budget"
    """Limits of pools and accounts."""
    AUDIT = "audit"
    """See and verify what the audit noted of all."""


CONCERNS_ALL = frozenset({Right.CHANGE, Right.ANSWER, Right.REVIVE, Right.RETIRE, Right.HOLD, Right.BUDGET, Right.TYPE})
"""A request that takes one of these and names nothing is about the whole fleet; with another, about its caller."""


class Extent(StrEnum):
    """For what a caller has a right."""

    NONE = "none"
    OWN = "own"
    ANY = "any"


EVERYBODY = "*"
"""Stands for all agents, or all parties, where one could be named: it belongs to no single one."""


@dataclass(frozen=True)
class Subject:
    """What a request is about: a caller may have a right for what is its own, and not for what is others'."""

    task: str | None = None
    agent: str | None = None
    party: str | None = None
    """In whose name it is done, or whose messages it reads; None: the caller itself."""

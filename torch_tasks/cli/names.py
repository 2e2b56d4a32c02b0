"""What is named on a command line: tasks, messages, check-ins, agents, roles, skills, kinds, nodes.

The shell completes each; of a long id the beginning is enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from torch_tasks.config_files import known_kinds
from torch_tasks.errors import BrokerAway
from torch_tasks.fleet import fleet
from torch_tasks.model.near import did_you_mean
from torch_tasks.settings import settings

_SHORTEST_BEGINNING, _NAMED = 4, 3
_OFFERED = 100
_PATIENCE = "0.3"
"""Seconds: a shell that completes does not wait longer for the broker."""

Known = Callable[[], Iterable[tuple[str, str]]]
"""The names that there are, each with a word on what it is."""


class Named(click.ParamType[str]):
    """The name of one thing of a sort."""

    def __init__(self, name: str, known: Known, beginning: Callable[[str], list[str]] | None = None) -> None:
        """``beginning`` finds the ids that begin with at least four characters."""
        self.name = name
        self._known = known
        self._beginning = beginning

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The one id that begins so; an unknown one stays as it is, for the command to refuse."""
        if self._beginning is None or len(value) < _SHORTEST_BEGINNING:
            return str(value)
        try:
            found = self._beginning(value)
        except BrokerAway:  # the command itself says so, if it needs the broker
            return str(value)
        if len(found) > 1:
            self.fail(f"{len(found)} {self.name}s begin with {value}: {', '.join(found[:_NAMED])}, …", param, ctx)
        return found[0] if found else str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so; none, at once and silently, if the broker is away or anything is wrong."""
        os.environ["TORCH_BROKER_CONNECT_SECONDS"] = _PATIENCE
        try:
            return [CompletionItem(one, help=what) for one, what in self._known() if one.startswith(incomplete)]
        except Exception:  # whatever is wrong, the command says it, not the line that is being typed
            return []


def _tasks() -> Iterable[tuple[str, str]]:
    return ((record.spec.id, f"{record.state}: {record.spec.title}") for record in fleet().records.latest(_OFFERED))


def _messages() -> Iterable[tuple[str, str]]:
    latest = reversed(fleet().inboxes.latest(limit=_OFFERED))
    return ((record.message.id, f"{record.state}: {record.message.title}") for record in latest)


def _checkins() -> Iterable[tuple[str, str]]:
    return ((one.checkin.id, f"for {one.checkin.target}: {one.checkin.title}") for one in fleet().checkins.records())


def _agents() -> Iterable[tuple[str, str]]:
    return ((info.agent_id, f"{info.role}, {info.state if info.online else info.status}") for info in _registered())


def _registered() -> Any:
    return fleet().registry.agents()


def _roles() -> Iterable[tuple[str, str]]:
    return ((role, "") for role in known_roles())


def _skills() -> Iterable[tuple[str, str]]:
    return ((skill, "") for skill in fleet().registry.skills())


def _nodes() -> Iterable[tuple[str, str]]:
    return ((info.name, str(info.status)) for info in fleet().nodes.nodes())


def _kinds() -> Iterable[tuple[str, str]]:
    return ((kind, "") for kind in known_kinds())


def known_roles() -> list[str]:
    """The roles of the agents that are or were there, and of those in torch.toml."""
    there = {info.role for info in _registered()}
    return sorted(there | {agent.role for agent in settings().agents} | {pool.role for pool in settings().pools})


def role_hint(role: str) -> str:
    """`` (did you mean developer?)`` behind a role that no agent has, if one is near."""
    return _hint(role, known_roles())


def skill_hint(skill: str) -> str:
    """The same behind a skill, or a kind, which is a skill of its agents."""
    return _hint(skill, {*fleet().registry.skills(), *known_kinds()})


def _hint(word: str, known: Collection[str]) -> str:
    hint = "" if word in known else did_you_mean(word, known)
    return f" ({hint})" if hint else ""


TASK = Named("task", _tasks, lambda given: fleet().records.ids_beginning(given))
MESSAGE = Named("message", _messages, lambda given: fleet().inboxes.ids_beginning(given))
CHECKIN = Named("check-in", _checkins, lambda given: fleet().checkins.ids_beginning(given))
AGENT = Named("agent", _agents)
ROLE = Named("role", _roles)
SKILL = Named("skill", _skills)
NODE = Named("node", _nodes)
KIND = Named("kind", _kinds)

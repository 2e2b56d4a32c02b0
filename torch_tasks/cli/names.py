"""What is named on a command line: tasks, messages, check-ins, agents, roles, skills, kinds, nodes.

The shell completes each; of a long id the beginning is enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import click
from click.shell_completion import CompletionItem

from torch_tasks.config_files import known_kinds
from torch_tasks.errors import BrokerAway
from torch_tasks.link import perform
from torch_tasks.model.near import did_you_mean
from torch_tasks.operations.names import FindNames, KnownName, NameSort, find

_SHORTEST_BEGINNING, _NAMED = 4, 3
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


def known(sort: NameSort, beginning: str = "") -> list[str]:
    """The names of this sort that the fleet knows."""
    return [one.name for one in _found(sort, beginning)]


def role_hint(role: str) -> str:
    """`` (did you mean developer?)`` behind a role that no agent has, if one is near."""
    return _hint(role, known(NameSort.ROLE))


def skill_hint(skill: str) -> str:
    """The same behind a skill, or a kind, which is a skill of its agents."""
    return _hint(skill, {*known(NameSort.SKILL), *known_kinds()})


def _hint(word: str, among: Collection[str]) -> str:
    hint = "" if word in among else did_you_mean(word, among)
    return f" ({hint})" if hint else ""


def _found(sort: NameSort, beginning: str = "") -> list[KnownName]:
    return perform(find, FindNames(sort=sort, beginning=beginning))


def _in_fleet(sort: NameSort) -> Named:
    return Named(sort, lambda: ((one.name, one.about) for one in _found(sort)))


def _with_id(sort: NameSort) -> Named:
    return Named(sort, lambda: ((one.name, one.about) for one in _found(sort)), partial(known, sort))


TASK, MESSAGE, CHECKIN = map(_with_id, (NameSort.TASK, NameSort.MESSAGE, NameSort.CHECKIN))
AGENT, ROLE, SKILL, NODE = map(_in_fleet, (NameSort.AGENT, NameSort.ROLE, NameSort.SKILL, NameSort.NODE))
KIND = Named("kind", lambda: ((kind, "") for kind in known_kinds()))

"""The rules of ``policy.toml``: which caller has which right, and for what.

The table that Torch ships says something of everybody; what stands in the user's file counts before it, key by key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from torch_tasks.caller import Caller, CallerKind
from torch_tasks.config_files import config_file, shipped_config, user_config
from torch_tasks.model.fields import Role
from torch_tasks.security.rights import Extent, Right
from torch_tasks.toml_config import Location, line_of, read_config

POLICY_FILE = "policy.toml"
_DEFAULT = "default"


class PolicyPart(BaseModel):
    """A table of policy.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RightsTable(PolicyPart):
    """What one sort of caller may do: one key for each :class:`Right`, and ``default`` for those that are not named."""

    default: Extent | None = None
    look: Extent | None = None
    watch: Extent | None = None
    enqueue: Extent | None = None
    grant: Extent | None = None
    change: Extent | None = None
    report: Extent | None = None
    answer: Extent | None = None
    revive: Extent | None = None
    send: Extent | None = None
    cross: Extent | None = None
    read: Extent | None = None
    schedule: Extent | None = None
    share: Extent | None = None
    type: Extent | None = None
    spawn: Extent | None = None
    retire: Extent | None = None
    hold: Extent | None = None
    budget: Extent | None = None
    audit: Extent | None = None


class CallerTables(PolicyPart):
    """``[rights.…]``: what each sort of caller may do."""

    person: RightsTable = RightsTable()
    node: RightsTable = RightsTable()
    operator: RightsTable = RightsTable()
    program: RightsTable = RightsTable()
    viewer: RightsTable = RightsTable()
    agent: RightsTable = RightsTable()
    role: dict[Role, RightsTable] = {}
    """Agents of a role: what stands here counts before what ``agent`` says."""

    def table(self, location: Location) -> RightsTable | None:
        first, *more = location
        if more:
            return self.role.get(str(more[0]))
        found = getattr(self, str(first)) if first in type(self).model_fields else None
        return found if isinstance(found, RightsTable) else None


class RightsFile(BaseModel):
    """The part of policy.toml that says who may do what."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    rights: CallerTables = Field(default_factory=CallerTables)


@dataclass(frozen=True)
class PolicyRule:
    """What decides about a right of a caller, and where that stands."""

    table: str
    key: str
    extent: Extent
    place: str

    def __str__(self) -> str:
        return f'[{self.table}] {self.key} = "{self.extent}" ({self.place})'


class Rules:
    """The user's rules over Torch's own."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        """``files`` are those that exist, the one that counts first before the others."""
        self._files = [(file, read_config(file, RightsFile)) for file in files]
        self.rule_of = cache(self._rule_of)
        """What decides about a right, by the tables that say something of its caller."""

    @cached_property
    def roles(self) -> frozenset[str]:
        """The roles of agents that have a table of their own."""
        return frozenset(role for _, read in self._files for role in read.rights.role)

    def rule_for(self, who: Caller, right: Right) -> PolicyRule:
        """The rule that decides; without any, the caller has no such right."""
        return self.rule_of(_tables_of(who), right)

    def _rule_of(self, tables: tuple[Location, ...], right: Right) -> PolicyRule:
        found = next((rule for table in tables for rule in self._said(table, right)), None)
        return found or PolicyRule(_name(tables[-1]), str(right), Extent.NONE, "no file says anything else")

    def depends_on_role(self, right: Right) -> bool:
        """Whether agents of some role may do more, or less, than others."""
        return any(any(self._said(("role", role), right)) for role in self.roles)

    def _said(self, location: Location, right: Right) -> Iterator[PolicyRule]:
        for file, read in self._files:
            table = read.rights.table(location)
            for key in (right, _DEFAULT):
                if extent := getattr(table, key, None):
                    yield self._rule(file, location, key, extent)

    def _rule(self, file: Path, table: Location, key: str, extent: Extent) -> PolicyRule:
        line = line_of(file.read_text(), ("rights", *table, key))
        return PolicyRule(_name(table), key, extent, f"{file}, line {line}")


def _tables_of(who: Caller) -> tuple[Location, ...]:
    """The tables that say something of this caller, the one that counts first before the others."""
    if who.kind is CallerKind.AGENT:
        return (("role", who.role), ("agent",)) if who.role else (("agent",),)
    return ((who.role or str(who.kind),),)


def _name(table: Location) -> str:
    return ".".join(map(str, ("rights", *table)))


def where_to_change() -> str:
    """The file in which a user says otherwise."""
    return str(user_config() / POLICY_FILE)


@cache
def rules() -> Rules:
    """The rules of this process, as they stood when it asked first."""
    named = (config_file(POLICY_FILE), shipped_config() / POLICY_FILE)
    return Rules(tuple(dict.fromkeys(file for file in named if file)))

"""Which agents form a team."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

from torch_tasks.errors import TeamImpossible
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import Model


class Member(Model):
    """One agent of a team, and which of the skills it brings."""

    agent: AgentInfo
    skills: tuple[str, ...]


def find_team(skills: Iterable[str]) -> list[Member]:
    """Online agents that together have these skills: as few busy ones, then as few, as possible. None is reserved.

    :class:`TeamImpossible` names the skills that no agent has.
    """
    wanted = frozenset(skill.strip().lower() for skill in skills)
    if not wanted:
        raise TeamImpossible("a team needs at least one skill to cover")
    found = fleet().registry.find_available_agents(skills=wanted, match="any")
    missing = wanted - frozenset(itertools.chain.from_iterable(info.abilities for info in found))
    if missing:
        raise TeamImpossible(f"no online agent has: {', '.join(sorted(missing))}")
    return [Member(agent=info, skills=tuple(sorted(info.abilities & wanted))) for info in _fewest(wanted, found)]


def _fewest(wanted: frozenset[str], found: list[AgentInfo]) -> tuple[AgentInfo, ...]:
    """The cheapest cover: each step adds the best agent of those that bring the same skills."""
    best: dict[tuple[frozenset[str], bool], AgentInfo] = {}
    for info in found:  # the best first
        best.setdefault((info.abilities & wanted, info.free), info)
    count = itertools.count()
    waiting: list[tuple[int, int, int, frozenset[str], tuple[AgentInfo, ...]]] = [(0, 0, 0, frozenset(), ())]
    seen: set[frozenset[str]] = set()
    while True:
        busy, size, _, covered, team = heapq.heappop(waiting)
        if covered == wanted:
            return team
        if covered in seen:
            continue
        seen.add(covered)
        for (brings, free), info in best.items():
            if brings - covered:
                step = (busy + (not free), size + 1, next(count), covered | brings, (*team, info))
                heapq.heappush(waiting, step)

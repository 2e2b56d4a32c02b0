"""Forming a team: agents that together have all the skills a piece of work needs, and who manages it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

from torch_tasks.errors import TeamImpossible
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import Model
from torch_tasks.model.message import PEOPLE
from torch_tasks.store.agents import AgentRegistry

_SHELL = "shell"


class Member(Model):
    """One agent of a team, and which of the skills it brings."""

    agent: AgentInfo
    skills: tuple[str, ...]


def form_team(skills: Iterable[str], registry: AgentRegistry | None = None) -> list[Member]:
    """As few busy agents as possible, then as few agents as possible, who are online and together have these skills.

    :class:`TeamImpossible` says at once which skills nobody has. Nobody is reserved by this.
    """
    wanted = frozenset(skill.strip().lower() for skill in skills)
    if not wanted:
        raise TeamImpossible("a team needs at least one skill to cover")
    found = (registry or AgentRegistry()).find_available_agents(skills=wanted, match="any")
    missing = wanted - frozenset(itertools.chain.from_iterable(info.abilities for info in found))
    if missing:
        raise TeamImpossible(f"no agent that is online has: {', '.join(sorted(missing))}")
    return [Member(agent=info, skills=tuple(sorted(info.abilities & wanted))) for info in _fewest(wanted, found)]


def manager_of(agents: Iterable[AgentInfo], role: str, agent_id: str) -> str:
    """A manager who is there rather than one who is away; a person, if it is about the only one, or there is none.

    A shell is no manager: it would run the words.
    """
    managers = [info for info in agents if info.role == role and info.agent_id != agent_id and info.kind != _SHELL]
    best = min(managers, key=lambda info: (not info.online, info.agent_id), default=None)
    return best.agent_id if best else PEOPLE


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

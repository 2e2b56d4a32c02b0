"""Which agent gets a task first: a policy of plain values."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from typing import NamedTuple

from torch_tasks.model.agent import AgentState, Performance
from torch_tasks.model.hold import LatestHolds
from torch_tasks.model.routing import Obstacle


class Search(NamedTuple):
    """What a task asks of an agent."""

    role: str = ""
    skills: tuple[str, ...] = ()
    any_skill: bool = False
    """One of the skills is enough."""
    wished: tuple[str, ...] = ()
    """Of two that are free, the one with more of these comes first."""
    obstacles: Collection[str] = ()
    """An agent with one of these is left out."""

    def ways(self) -> list[list[str]]:
        """The ways through the index, each a list of places that leads to all agents in question and to others.

        A skill may also be the kind of an agent's program.
        """
        places = [[f"skill {skill}", f"kind {skill}"] for skill in self.skills]
        if self.any_skill and places:
            places = [[place for pair in places for place in pair]]
        return ([[f"role {self.role}"]] if self.role else []) + places


class Candidate(NamedTuple):
    """What a search needs of an online agent."""

    agent_id: str
    state: str
    """What keeps it from work, an :class:`Obstacle`, else what its program does."""
    role: str
    abilities: Collection[str]
    load: int = 0
    succeeded: int = 0
    failed: int = 0


def matches(candidate: Candidate, asked: Search, holds: LatestHolds) -> bool:
    """Whether a search asks for this agent."""
    if asked.role not in ("", candidate.role) or candidate.state in asked.obstacles:
        return False
    if holds.root and Obstacle.PAUSED in asked.obstacles and holds.pause_of(candidate.agent_id, candidate.role):
        return False
    if not asked.skills:
        return True
    known = [skill in candidate.abilities for skill in asked.skills]
    return any(known) if asked.any_skill else all(known)


def rank(
    candidates: Iterable[Candidate], asked: Search, holds: LatestHolds, limit: int | None = None
) -> list[Candidate]:
    """The agents that match: free ones first, then by wished skills, success rate and load; at most so many."""
    succeeded, ended = Performance.PRIOR

    def key(candidate: Candidate) -> tuple[bool, int, float, int, str]:
        is_free = candidate.state == AgentState.READY and candidate.load == 0
        wished = sum(skill in candidate.abilities for skill in asked.wished) if asked.wished else 0
        rate = (candidate.succeeded + succeeded) / (candidate.succeeded + candidate.failed + ended)
        return not is_free, -wished, -rate, candidate.load, candidate.agent_id

    found = (candidate for candidate in candidates if matches(candidate, asked, holds))
    return heapq.nsmallest(limit, found, key=key) if limit else sorted(found, key=key)

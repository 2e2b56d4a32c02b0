"""``AgentRegistry``: who is there, from Python."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Literal

from torch_tasks import operations
from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.model.agent import AgentChange, AgentInfo, SeenAgents
from torch_tasks.operations.operation import WAIT_SECONDS, Nothing


class AgentRegistry:
    """Which agents there are, what they can do, and what they are doing."""

    def __init__(self, *, link: Link | None = None) -> None:
        self._link = link or own_link()

    def find_available_agents(
        self,
        role: str | None = None,
        skills: Iterable[str] = (),
        match: Literal["all", "any"] = "all",
        *,
        wished: Iterable[str] = (),
        limit: int | None = None,
    ) -> list[AgentInfo]:
        """The agents that can take such a task: free ones first, then by ``wished`` skills, success rate and load."""
        fields = {"skills": words(skills), "wished": words(wished)}
        return self._link.perform(
            operations.agents.find, operations.agents.FindAgents.build(role=role, match=match, limit=limit, **fields)
        )

    def get_agent(self, agent_id: str) -> AgentInfo:
        """One agent, or :class:`AgentNotFound`."""
        return self._link.perform(operations.agents.get, operations.agents.OfAgent.build(agent_id=agent_id))

    def get_all_agents(self) -> list[AgentInfo]:
        """All agents ever registered, by id, with who is online now."""
        return self._link.perform(operations.agents.list_agents, operations.agents.ListAgents())

    def skills(self) -> list[str]:
        """Every skill that an agent has, online or not."""
        return self._link.perform(operations.agents.skills, Nothing())

    def watch(self, deadline: float | None = None) -> Iterator[AgentChange]:
        """Each change from now on, until the monotonic ``deadline``."""
        begun = self._link.perform(operations.agents.changes, operations.agents.AwaitChanges())
        return self._changes(SeenAgents(begun.agents), begun.place, deadline)

    def _changes(self, seen: SeenAgents, place: str, deadline: float | None) -> Iterator[AgentChange]:
        while (left := WAIT_SECONDS if deadline is None else min(WAIT_SECONDS, deadline - time.monotonic())) > 0:
            new = self._link.perform(
                operations.agents.changes, operations.agents.AwaitChanges(after=place, seconds=left)
            )
            place = new.place
            yield from seen.look(new.agents)


def words(given: Iterable[str]) -> list[str]:
    """Several words, of which a single one may be given as it is."""
    return [given] if isinstance(given, str) else list(given)

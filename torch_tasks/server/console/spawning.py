"""What a form offers that starts an agent: the names that the fleet knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch_tasks.server.console.page import NAMES_SECONDS, Visit

_KINDS = frozenset({"shell", "claude", "codex", "gemini", "opencode", "aider", "acp"})
"""Those that Torch brings; a fleet may have more."""


@dataclass(frozen=True)
class SpawnChoices:
    roles: tuple[str, ...]
    kinds: tuple[str, ...]
    skills: tuple[str, ...]
    nodes: tuple[str, ...]

    def parted(self, skills: Iterable[str]) -> tuple[str, str]:
        """What tasks ask for as skills, as the kind of an agent that serves them, and the skills that are left."""
        asked = list(skills)
        kind = next((one for one in asked if one in self.kinds), "shell")
        return kind, ", ".join(one for one in asked if one != kind)


def spawn_choices(visit: Visit) -> SpawnChoices:
    agents, nodes = visit.ask_together("agent.list", NAMES_SECONDS), visit.ask_together("node.list", NAMES_SECONDS)
    return SpawnChoices(
        roles=_names(agent.role for agent in agents),
        kinds=_names(_KINDS.union(agent.kind for agent in agents)),
        skills=_names(skill for agent in agents for skill in agent.skills),
        nodes=_names(node.name for node in nodes if node.online and not node.drained),
    )


def _names(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(found)))

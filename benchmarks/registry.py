"""How long it takes to find an agent for a task among many, and what an idle agent asks of the broker."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness import Stage, clock
from benchmarks.measures import Measure, percentile
from benchmarks.simulated_agents import ROLES, SKILLS, made_up_agent
from torch_tasks import keys, settings
from torch_tasks.fleet import fleet
from torch_tasks.model.fields import now
from torch_tasks.store.agents import AgentRecords

GOALS_MS = {10: None, 1_000: 5.0, 10_000: 50.0}


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Look-ups among agents that were all entered through the registry itself."""
    found: list[Measure] = []
    for count, goal in GOALS_MS.items():
        with entered(count):
            found += _looks(count, goal, 50 if quick else 500)
    return [*found, _idle()]


def _looks(count: int, goal: float | None, times: int) -> Iterator[Measure]:
    registry, dice = AgentRecords(), random.Random(count)

    def asked() -> tuple[str, list[str]]:
        return dice.choice(ROLES), dice.sample(SKILLS, 2)

    ways = {
        "the best with role and 2 skills": lambda role, skills: registry.find_available_agents(role, skills, limit=1),
        "all with role and 2 skills": lambda role, skills: registry.find_available_agents(role, skills),
        "all with role and any of 2 skills": lambda role, skills: registry.find_available_agents(role, skills, "any"),
        "the best of a role": lambda role, _: registry.find_available_agents(role, limit=1),
        "the best of all": lambda *_: registry.find_available_agents(limit=1),
    }
    for what, way in ways.items():
        way(*asked())
        took = [clock(lambda way=way: way(*asked())) * 1000 for _ in range(times)]  # type: ignore[misc]
        for percent in (50, 95, 99):
            yield Measure(
                f"{count:,} agents: {what}, p{percent}",
                percentile(took, percent),
                "ms",
                goal=goal if percent == 99 else None,
            )


@contextmanager
def entered(count: int) -> Iterator[None]:
    """So many agents with fresh heartbeats, a third of them at work."""
    registry, dice = fleet().registry, random.Random(1)
    for number in range(count):
        task = "t" if number % 3 == 1 else None
        registry.heartbeat(registry.register(made_up_agent("bench", number, dice, task)))
    # Entering so many takes longer than a heartbeat may stay away.
    ids = [f"bench-{number}" for number in range(count)]
    fleet().client.zadd(keys.AGENT_HEARTBEAT, dict.fromkeys(ids, int(now().timestamp() * 1000) + 3_600_000))
    yield
    fleet().client.delete(
        keys.AGENT_REGISTRY,
        keys.AGENT_TRAITS,
        keys.AGENT_HEARTBEAT,
        keys.AGENT_INDEX,
        keys.AGENT_LOAD,
        keys.AGENT_INCARNATION,
    )


def _idle() -> Measure:
    """What one heartbeat of an agent that does nothing has the broker do, at a fleet's own pace."""
    with entered(1):
        (info,) = fleet().registry.agents()
        client = fleet().client
        fleet().registry.heartbeat(info)
        before = _commands(client)
        for _ in range(100):
            fleet().registry.heartbeat(info)
        each = (_commands(client) - before) / 100
    pace = settings.settings().heartbeat_seconds
    return Measure("broker commands of an idle agent's heartbeats, scripts' own included", each / pace, "per s", goal=2)


def _commands(client: object) -> int:
    stats = client.info("commandstats")  # type: ignore[attr-defined]
    return sum(int(one["calls"]) for name, one in stats.items() if name != "cmdstat_info")

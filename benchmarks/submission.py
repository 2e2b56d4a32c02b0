"""How long a prompt takes into a coding agent's program, and its answer out of it; what it costs to watch.

The programs are fake ones (``tests/fakes/cli``) in real panes, driven by real agent workers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from statistics import median

import psutil
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import FOREVER, Work

from benchmarks.fake_agents import SILENT, TELLING, FakeAgent, fake_agents, wall
from benchmarks.harness import READY_SECONDS, Stage, await_true, clock, cpu_seconds
from benchmarks.measures import Measure, percentile
from benchmarks.old_script import OldScript
from torch_tasks.model.agent import AgentSpec
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.kind import program_of
from torch_tasks.workers.tmux.pane import AgentPane

WORDS = "look at the tests\nand fix what fails"
SETTLE_SECONDS = 5.0
ACCEPTED, KNOWN = "taken → known to be accepted", "turn over → result known"


@dataclass(frozen=True)
class Times:
    """One task's moments, in seconds since the epoch."""

    taken: float
    """The agent worker has it."""
    had: float
    """The program's model has it."""
    accepted: float
    """Torch knows that."""
    over: float
    """The program says that the turn is over."""
    known: float
    """The caller has the result."""


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Times for fleets of growing size, and their cost at rest and at work."""
    sizes, idle, tasks, seconds = ((1, 4), 4, 10, 10.0) if quick else ((1, 10, 50), 20, 100, 60.0)
    measures: list[Measure] = []
    with ExitStack() as fleet:
        agents: list[FakeAgent] = []
        for size in sorted({*sizes, idle}):
            ids = [f"fake-{number}" for number in range(len(agents) + 1, size + 1)]
            agents += fleet.enter_context(fake_agents(stage, ids)) if ids else []
            if size == idle:
                measures += _at_rest(stage, agents, seconds)
            if size in sizes:
                measures += _ways(stage, agents, tasks)
    with fake_agents(stage, ["silent-1"], SILENT) as silent:
        times = [_one(stage, agent) for agent in silent * (tasks // 2)]
        measures += _shown("no hooks, 1 agent", times, goal=None)
    measures += [_old_way(stage, 3 if quick else 20), *_at_work(stage, seconds / 2)]
    return measures


# ── how long ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _ways(stage: Stage, agents: Sequence[FakeAgent], tasks: int) -> Iterator[Measure]:
    """One task after the other, each to the next agent; then one to each at once."""
    count = len(agents)
    times = [_one(stage, agents[number % count]) for number in range(max(tasks, count))]
    yield from _shown(f"{count} agent{'s' if count > 1 else ''}", times, goal=150)
    if count > 1:
        with ThreadPoolExecutor(count) as at_once:
            times = [task for _ in range(3) for task in at_once.map(partial(_one, stage), agents)]
        yield from _shown(f"{count} agents, all at once", times, goal=None)


def _one(stage: Stage, agent: FakeAgent) -> Times:
    task = stage.torch.enqueue(WORDS, agent=agent.id)
    task.result(READY_SECONDS).raise_for_status()
    known = time.time()
    taken = task.record().assigned_at
    submission = stage.folder / "agents" / agent.id / "runs" / f"{task.id}.1" / "submission.json"
    accepted = json.loads(submission.read_bytes())["steps"][-1]
    assert taken
    assert accepted["phase"] == "accepted"
    had = next(record for record in agent.cli.records("submitted") if task.id in record["text"])
    over = next(
        record for record in agent.cli.records("event") if record["name"] == "Stop" and record["at"] > had["at"]
    )
    return Times(
        taken=taken.timestamp(),
        had=wall(had),
        accepted=datetime.fromisoformat(accepted["at"]).timestamp(),
        over=wall(over),
        known=known,
    )


def _shown(where: str, tasks: Sequence[Times], goal: float | None) -> Iterator[Measure]:
    had = median(task.had - task.taken for task in tasks)
    yield Measure(f"{where}: taken → the model has it, p50", 1000 * had, "ms")
    for what, waits in (
        (ACCEPTED, [task.accepted - task.taken for task in tasks]),
        (KNOWN, [task.known - task.over for task in tasks]),
    ):
        for percent in (50, 95, 99):
            aim = goal if percent == 50 and what == ACCEPTED else None
            yield Measure(f"{where}: {what}, p{percent}", 1000 * percentile(waits, percent), "ms", goal=aim)


def _old_way(stage: Stage, times: int) -> Measure:
    """The old script never knows that anything was accepted; it is measured until the model has it."""
    with OldScript(stage.folder / "old") as old:
        waits = []
        for number in range(times):
            begun = time.time()
            old.send(f"{WORDS} ({number})")
            await_true(lambda number=number: len(old.cli.submitted()) > number, READY_SECONDS, "it has it")  # type: ignore[misc]
            waits.append(wall(old.cli.records("submitted")[-1]) - begun)
            await_true(lambda number=number: len(old.cli.records("turn_over")) > number, READY_SECONDS, "it is done")  # type: ignore[misc]
    return Measure("the old script: called → the model has it, p50", 1000 * median(waits), "ms")


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────


def _at_rest(stage: Stage, agents: Sequence[FakeAgent], seconds: float) -> Iterator[Measure]:
    time.sleep(SETTLE_SECONDS)
    torch, programs, broker = _cpu(stage, agents, seconds)
    count = len(agents)
    yield Measure(f"CPU of {count} idle agents: workers, tmux", torch, "% of a core")
    yield Measure(f"CPU of {count} idle agents: broker", broker, "% of a core")
    yield Measure(f"CPU of {count} idle agents: Torch's side in all", torch + broker, "% of a core", goal=2)
    yield Measure(f"CPU of {count} idle agents: the fake programs themselves", programs, "% of a core")


def _at_work(stage: Stage, seconds: float) -> Iterator[Measure]:
    """What it costs to watch a program at work, which spins its spinner four times a second."""
    count = 2
    for kind, what in ((TELLING, "with hooks"), (SILENT, "no hooks")):
        with fake_agents(stage, [f"busy-{kind}-{number}" for number in range(count)], kind) as agents:
            for agent in agents:
                agent.cli.play(Scenario(default=Turn((Work(FOREVER),))))
            tasks = [stage.torch.enqueue(WORDS, agent=agent.id) for agent in agents]
            for agent in agents:
                await_true(lambda agent=agent: len(agent.cli.submitted()) > 1, READY_SECONDS, "it works")  # type: ignore[misc]
            time.sleep(SETTLE_SECONDS)
            torch, programs, _ = _cpu(stage, agents, seconds)
            yield Measure(f"CPU of a working agent's worker and tmux, {what}", torch / count, "% of a core")
            if kind == TELLING:
                yield Measure("CPU of its fake program", programs / count, "% of a core")
                yield Measure("one look at its screen", 1000 * _look(agents[0]), "ms")
            for task in tasks:
                task.cancel()


def _cpu(stage: Stage, agents: Sequence[FakeAgent], seconds: float) -> tuple[float, float, float]:
    """The shares of a core that Torch's side, the programs, and the broker take."""
    torch = [process for agent in agents for process in agent.torch_side()]
    programs = [agent.program() for agent in agents]
    groups: tuple[list[psutil.Process], ...] = (torch, programs, [stage.broker])
    before, begun = [cpu_seconds(group) for group in groups], time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    torch_used, programs_used, broker_used = (
        100 * (cpu_seconds(group) - used) / passed for group, used in zip(groups, before, strict=True)
    )
    return torch_used, programs_used, broker_used


def _look(agent: FakeAgent) -> float:
    """Seconds to see the pane and to know what it means."""
    folder = agent.agent.socket.parent
    kind = program_of(AgentSpec(id=agent.id, role="bench", kind=TELLING), folder, folder)
    pane = AgentPane.adopt(agent.agent.socket, agent.tmux("display-message", "-p", "#{pane_id}"))
    assert pane
    assert isinstance(kind, CodingAgent)
    look: Callable[[], object] = partial(kind.read_screen, pane)
    try:
        return median(clock(look) for _ in range(200))
    finally:
        pane.close()

"""What agents take that are forked from the warm parent, beside those that are started as usual, in one run."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import psutil

from benchmarks.harness import READY_SECONDS, ROLE, Stage, await_true, cpu_seconds
from benchmarks.measures import Measure
from torch_tasks.machine import commands
from torch_tasks.machine.agent_folder import agent_worker_name
from torch_tasks.machine.warm import warm_parent
from torch_tasks.model.agent import AgentSpec
from torch_tasks.settings import settings
from torch_tasks.system.processes import Processes
from torch_tasks.system.warm_start import WarmParent

MIB = 1 << 20
SETTLE_SECONDS = 5.0
GRACE_SECONDS = 10.0


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Both ways."""
    return list(_measures(stage, quick))


def _measures(stage: Stage, quick: bool) -> Iterator[Measure]:
    """One after the other, then many at once, then left alone."""
    alone, together, seconds = (2, 4, 5.0) if quick else (5, 20, 30.0)
    warm = warm_parent(settings().model_copy(update={"warm_start": True}))
    assert warm is not None
    try:
        with _agents(stage, ["first"], warm):  # from now on, it is there
            for how, parent in (("started", None), ("forked", warm)):
                yield from _compared(stage, how, parent, alone, together, seconds)
            if not quick:
                begun = time.perf_counter()
                with _agents(stage, [f"crowd-{number}" for number in range(100)], warm):
                    yield Measure("forked: 100 agents at once, ready", time.perf_counter() - begun, "s", goal=15)
    finally:
        warm.stop(GRACE_SECONDS)


def _compared(
    stage: Stage, how: str, warm: WarmParent | None, alone: int, together: int, seconds: float
) -> Iterator[Measure]:
    ready = []
    for number in range(alone):
        begun = time.perf_counter()
        with _agents(stage, [f"{how}-alone-{number}"], warm):
            ready.append(time.perf_counter() - begun)
    yield Measure(f"{how}: start to ready", median(ready), "s")
    begun = time.perf_counter()
    with _agents(stage, [f"{how}-{number}" for number in range(together)], warm) as workers:
        yield Measure(f"{how}: {together} agents at once, ready", time.perf_counter() - begun, "s")
        time.sleep(SETTLE_SECONDS)
        used = cpu_seconds(workers)
        yield Measure(f"{how}: CPU of a start", used / together, "s")
        memory = [worker.memory_full_info() for worker in workers]
        yield Measure(f"{how}: USS of one worker", median(one.uss for one in memory) / MIB, "MiB", goal=25)
        yield Measure(f"{how}: PSS of one worker", median(one.pss for one in memory) / MIB, "MiB")
        before = cpu_seconds(workers)
        time.sleep(seconds)
        share = 100 * (cpu_seconds(workers) - before) / seconds
        yield Measure(f"{how}: CPU of {together} idle workers", share, "% of a core", goal=0.5)


@contextmanager
def _agents(stage: Stage, ids: Sequence[str], warm: WarmParent | None) -> Iterator[list[psutil.Process]]:
    """These agents' workers, all ready."""
    state = settings().state
    processes = Processes(state.run)
    names = [agent_worker_name(agent_id) for agent_id in ids]
    try:
        workers = [
            processes.start(
                name,
                commands.runnable(commands.agent_worker(_spec(agent_id, stage))),
                log=state.logs / f"{name}.log",
                env=dict(os.environ),
                forker=warm,
            )
            for name, agent_id in zip(names, ids, strict=True)
        ]
        await_true(lambda: set(ids) <= _ready(stage), READY_SECONDS, "all agents are ready")
        yield [psutil.Process(worker.pid) for worker in workers]
    finally:
        for name, agent_id in zip(names, ids, strict=True):
            processes.stop(name, GRACE_SECONDS)
            end = ["tmux", "-S", str(state.agent(agent_id) / "tmux"), "kill-server"]
            subprocess.run(end, capture_output=True, check=False)


def _spec(agent_id: str, stage: Stage) -> AgentSpec:
    return AgentSpec(id=agent_id, role=ROLE, kind="shell", workdir=str(stage.folder))


def _ready(stage: Stage) -> set[str]:
    return {info.agent_id for info in stage.torch.agents(online=True) if info.state == "ready"}

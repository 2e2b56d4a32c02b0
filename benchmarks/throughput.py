"""Trivial tasks through more and more shell agents: how many a second, on whose processor time, and their weight."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median

import psutil

from benchmarks.harness import READY_SECONDS, ROLE, Agent, Stage, await_true
from benchmarks.measures import Measure, percentile
from torch_tasks import Task
from torch_tasks.model.task import TaskRecord

FLEETS = {1: 50, 10: 300, 50: 500, 100: 1000}
"""How many tasks for how many agents."""
QUICK_FLEETS = {1: 10, 4: 40}
STARTED_AT_ONCE = 10
MIB = 1 << 20


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Each fleet is the one before and some agents more."""
    found: list[Measure] = []
    agents: list[Agent] = []
    with ExitStack() as stack:
        for count, tasks in (QUICK_FLEETS if quick else FLEETS).items():
            begun = time.monotonic()
            while len(agents) < count:
                numbers = range(len(agents) + 1, min(len(agents) + STARTED_AT_ONCE, count) + 1)
                agents += stack.enter_context(stage.hosted([f"{ROLE}-{number}" for number in numbers]))
            started = time.monotonic() - begun
            found += drained(stage, agents, tasks)
            found += _alone(stage, count)
            found += _weight(agents, started)
    return found


def drained(stage: Stage, agents: list[Agent], tasks: int) -> Iterator[Measure]:
    """All tasks wait already; the file of effects shows what was done, whatever the records say."""
    count = len(agents)
    effects = stage.folder / f"effects-{count}"
    with _held_back(stage, agents):
        begun = time.monotonic()
        sent = [stage.torch.enqueue(f"echo {number} >> {effects}", role=ROLE) for number in range(tasks)]
        enqueued = time.monotonic() - begun
    before = _processor_seconds(stage, agents)
    records = [_ended(task) for task in sent]
    after = _processor_seconds(stage, agents)
    first = min(record.started_at for record in records if record.started_at)
    last = max(record.finished_at for record in records if record.finished_at)
    lost, doubled = _faults(effects, tasks)
    name = f"{count} agents, {tasks:,} tasks"
    busy = len({record.agent for record in records})
    note = f"{busy} agents had a share; load {os.getloadavg()[0]:.1f}"
    yield Measure(f"{name}: done", tasks / (last - first).total_seconds(), "tasks/s", note=note)
    yield Measure(f"{name}: enqueued before, by one client", tasks / enqueued, "tasks/s")
    for who, seconds in after.items():
        yield Measure(f"{name}: processor of {who}", 1000 * (seconds - before[who]) / tasks, "ms/task")
    yield Measure(f"{name}: lost", lost, "tasks", goal=0)
    yield Measure(f"{name}: done twice", doubled, "tasks", goal=0)


def _processor_seconds(stage: Stage, agents: list[Agent]) -> dict[str, float]:
    """What each sort of process has used of the processor until now, with those that it started and saw end."""
    terminals = [process for agent in agents for process in agent.terminal()]
    return {
        "the workers": sum(_used(agent.worker) for agent in agents),
        "tmux": sum(_used(process) for process in terminals if _name(process).startswith("tmux")),
        "the shells": sum(_used(process) for process in terminals if not _name(process).startswith("tmux")),
        "the broker": _used(stage.broker),
    }


def _used(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):  # what a shell runs ends at any time, and counts with its parent then
        return sum(process.cpu_times()[:4])
    return 0.0


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


@contextmanager
def _held_back(stage: Stage, agents: list[Agent]) -> Iterator[None]:
    """Every agent has a task that ends when what is enqueued meanwhile shall begin."""
    gate = stage.folder / f"gate-{len(agents)}"
    until_open = f"until [ -e {gate} ]; do sleep 0.5; done"
    held = [stage.torch.enqueue(until_open, agent=agent.id) for agent in agents]
    await_true(lambda: all(task.status == "running" for task in held), READY_SECONDS, "every agent is held")
    yield
    gate.touch()


def _ended(task: Task) -> TaskRecord:
    task.result(READY_SECONDS).raise_for_status()
    return task.record()


def _faults(effects: Path, tasks: int) -> tuple[int, int]:
    """How many of the tasks had no effect, and how many had more than one."""
    done = Counter(effects.read_text().split())
    return sum(str(number) not in done for number in range(tasks)), sum(times > 1 for times in done.values())


def _alone(stage: Stage, count: int) -> Iterator[Measure]:
    """One task at a time, while all agents are free."""
    waited = []
    for _ in range(30):
        record = _ended(stage.torch.enqueue(":", role=ROLE))
        assert record.started_at
        waited.append(1000 * (record.started_at - record.created_at).total_seconds())
    for percent in (50, 99):
        yield Measure(f"{count} free agents: enqueued to started, p{percent}", percentile(waited, percent), "ms")


def _weight(agents: list[Agent], started: float) -> Iterator[Measure]:
    workers = [agent.worker.memory_full_info().pss for agent in agents]
    terminals = [sum(process.memory_full_info().pss for process in agent.terminal()) for agent in agents]
    count = len(agents)
    yield Measure(f"{count} agents: PSS of a worker", median(workers) / MIB, "MiB")
    yield Measure(f"{count} agents: PSS of its tmux and shell", median(terminals) / MIB, "MiB")
    yield Measure(f"{count} agents: PSS of all", (sum(workers) + sum(terminals)) / MIB, "MiB")
    yield Measure(f"{count} agents: the latest of them started within", started, "s")

"""How long the server takes for pages of the console, with 10,000 tasks and 100 agents."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import httpx2
import psutil

from benchmarks.harness import Stage, clock, cpu_seconds
from benchmarks.measures import Measure, percentile
from benchmarks.registry import entered
from benchmarks.server import served
from torch_tasks.fleet import fleet
from torch_tasks.model.task import TaskSpec, TaskState
from torch_tasks.store.task_outcomes import NewTask

AGENTS, TASKS = 100, 10_000
GOAL_MS = 100.0
_WARM_SECONDS = 3.0
"""Nobody has logged in and asked for a page sooner after a start."""
_ENDS = (TaskState.CANCELLED, TaskState.PARKED, None, None)


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Each page as one person sees it who loads it again and again, while a task changes each time."""
    with entered(AGENTS):
        tasks = _accepted(1_000 if quick else TASKS)
        with served(stage) as (server, url, token):
            time.sleep(_WARM_SECONDS)
            times = 10 if quick else 50
            with httpx2.Client(base_url=url, headers={"Origin": url}, trust_env=False, timeout=60) as browser:
                browser.post("/login", data={"token": token})
                first = clock(lambda: browser.get("/tasks").raise_for_status()) * 1000
                return [
                    Measure("the first board, when the server has run for a few seconds", first, "ms", goal=GOAL_MS),
                    *_pages(browser, server, tasks, times),
                ]


def _accepted(count: int) -> list[str]:
    dice, records = random.Random(1), fleet().records
    specs = [TaskSpec(prompt=f"Look at part {n} of the parser", role="developer") for n in range(count - 1)]
    specs.append(TaskSpec(prompt="Bring it together", after=tuple(one.id for one in specs[:50])))
    for spec in specs:
        records.accept(NewTask(spec.id, spec.wire(), f"torch.{spec.role or 'any'}.any"))
        if not spec.after and (end := dice.choice(_ENDS)):
            records.move(spec.id, end, note="as the benchmark wants it")
    return [spec.id for spec in specs]


def _pages(browser: httpx2.Client, server: psutil.Process, tasks: list[str], times: int) -> Iterator[Measure]:
    paths = {
        "the board": "/tasks",
        "the board, one state": "/tasks?state=parked",
        "the board, words": "/tasks?q=part+77",
        "a task": f"/tasks/{tasks[-2]}",
        "a task that waits for 50": f"/tasks/{tasks[-1]}",
        "the form for a task": "/enqueue",
        "the fleet": "/fleet",
        "an agent": "/agents/bench-1",
        "what needs a person": "/",
        "the agenda": "/time",
        "the accounts": "/accounts",
        "the report": "/report",
        "the audit": "/audit",
    }
    for what, path in paths.items():
        took, used = [], cpu_seconds([server])
        for number in range(times):
            spec = TaskSpec(prompt=f"{what} {number}", role="developer")
            fleet().records.accept(NewTask(spec.id, spec.wire(), "torch.developer.any"))
            took.append(clock(lambda path=path: browser.get(path).raise_for_status()) * 1000)  # type: ignore[misc]
        yield Measure(f"{what}, the server's CPU", (cpu_seconds([server]) - used) / times * 1000, "ms")
        for percent in (50, 95):
            yield Measure(f"{what}, p{percent}", percentile(took, percent), "ms", goal=GOAL_MS)

"""How long a request takes through an agent's desk, and directly; and a report of an agent, from its command on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.harness import Stage
from benchmarks.measures import Measure, percentile
from torch_tasks.link.desk import DeskLink
from torch_tasks.link.direct import DirectLink
from torch_tasks.operations import tasks
from torch_tasks.state_folder import DESK

_REPORT = "from torch_tasks.cli import main; main()"


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """One agent; the same requests through its desk and past it, in turns."""
    count = 50 if quick else 1000
    with stage.agents(1) as (agent,):
        desk, direct = DeskLink(agent.socket.parent / DESK), DirectLink()
        known = tasks.OfTask(task_id=stage.torch.enqueue(":", agent=agent.id).id)
        took: dict[str, list[float]] = {}
        for number in range(count):
            for way, link in (("desk", desk), ("directly", direct)):
                took.setdefault(f"task.get, {way}", []).append(_took(lambda link=link: link.perform(tasks.get, known)))
                new = tasks.Enqueue.build(prompt=":", role="nobody", title=f"{way} {number}")
                done = _took(lambda link=link, new=new: link.perform(tasks.enqueue, new))
                took.setdefault(f"task.enqueue, {way}", []).append(done)
        found = [
            Measure(f"{what}, p{percent}", percentile(times, percent), "ms")
            for what, times in took.items()
            for percent in (50, 99)
        ]
        variables = {**os.environ, "TORCH_DESK": str(desk.path)}
        commands = {"report": (_REPORT, "progress", known.task_id, "half way"), "python": ("pass",)}
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(count // 20):
            for name, (program, *words) in commands.items():
                argv = [sys.executable, "-c", program, *words]
                taken[name].append(_took(lambda argv=argv: _run(argv, variables)))
        report, python = (percentile(taken[name], 50) for name in commands)
        found.append(Measure("'torch-tasks progress', p50", report, "ms"))
        found.append(Measure("of it, what is not the start of Python", report - python, "ms", 60))
    return found


def _took(act: Callable[[], object]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - begun)


def _run(argv: list[str], variables: dict[str, str]) -> None:
    # A shell agent's report is refused by the desk, after all that an accepted one goes through.
    subprocess.run(argv, env=variables, capture_output=True, check=False)

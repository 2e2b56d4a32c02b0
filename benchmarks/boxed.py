"""How long a pane takes to start its program, in a box and without one, in turns."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Stage
from benchmarks.measures import Measure, percentile
from torch_tasks.settings import settings
from torch_tasks.state_folder import BELL, TMUX
from torch_tasks.workers.sandbox.ability import why_not
from torch_tasks.workers.sandbox.agent_box import Inhabitant, agent_box, boxed, prepare
from torch_tasks.workers.sandbox.policy import BoxPaths
from torch_tasks.workers.tmux.pane import AgentPane

_SECONDS = 30.0


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """A shell that writes a file; until that is there."""
    if why := why_not():
        return [Measure(f"not measured: {why}", 0, "ms")]
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    try:
        took: dict[str, list[float]] = {"in a box": [], "without one": []}
        for number in range(5 if quick else 30):
            for how, times in took.items():
                times.append(_start(folder, how == "in a box", f"{number}"))
        middle = {how: percentile(times, 50) for how, times in took.items()}
        found = [
            Measure(f"pane start {how}, p{at}", percentile(took[how], at), "ms") for how in took for at in (50, 90)
        ]
        return [*found, Measure("of it, the box, p50", middle["in a box"] - middle["without one"], "ms", 50)]
    finally:
        shutil.rmtree(folder)


def _start(folder: Path, is_boxed: bool, name: str) -> float:
    """Milliseconds."""
    work, agent = folder / "work", folder / "agents" / "dev-1"
    for place in (work, agent):
        place.mkdir(parents=True, exist_ok=True)
    if not (agent / BELL).exists():
        os.mkfifo(agent / BELL)
    started = work / name
    command = ["bash", "-c", f": >{started}; exec sleep 60"]
    begun = time.perf_counter()
    if is_boxed:
        who = Inhabitant("dev-1", agent, BoxPaths(), "bash", "all", dict(os.environ))
        box = agent_box(who, work, settings())
        prepare(box, who)
        command = boxed(box, who, command, at_terminal=True, is_shell=True)
    pane = AgentPane.start(agent / TMUX, "dev-1", command, workdir=work, environment=os.environ)
    while not started.exists():
        if time.perf_counter() - begun > _SECONDS:
            raise AssertionError(f"the program does not start; its pane shows: {pane.screen()}")
        time.sleep(0.001)
    took = 1000 * (time.perf_counter() - begun)
    pane.end()
    started.unlink()
    return took

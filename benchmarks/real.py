"""The same times as ``submission`` has for fake programs, for each real CLI that is installed, with a fake model.

It refuses to run where there is more of a network than this machine's own: ``.ci/loopback-only make bench``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime

import psutil
from installed import AGENTS, PATH

from benchmarks.harness import READY_SECONDS, Agent, Stage
from benchmarks.measures import Measure, percentile
from torch_tasks.config_files import config_file
from torch_tasks.model.fields import now
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.certify.homes import HOMES

WORDS = "look at the tests\nand fix what fails"


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """One CLI after the other, one agent each."""
    return [measure for cli in HOMES for measure in _cli(stage, cli, 5 if quick else 30)]


def _cli(stage: Stage, cli: str, tasks: int) -> Iterator[Measure]:
    if why := missing(cli):
        yield Measure(cli, None, "", note=why)
        return
    with FakeLLM(stage.folder / f"llm-{cli}") as llm:
        home = HOMES[cli](stage.folder / f"home-{cli}", llm, f"real-{cli}", PATH)
        try:
            with stage.agent(f"real-{cli}", cli, home.work, **home.environment) as agent:
                stage.await_ready(agent)
                one_task(stage, agent, home)
                times = [one_task(stage, agent, home) for _ in range(tasks)]
        finally:
            home.clear()
    names = ("taken → the model has it", "taken → known to be accepted", "the model has it → result known")
    for name, waits in zip(names, zip(*times, strict=True), strict=True):
        for percent in (50, 95, 99):
            yield Measure(f"{cli}: {name}, p{percent}", 1000 * percentile(waits, percent), "ms")


def missing(cli: str) -> str:
    """Why this CLI is not measured, if so."""
    if set(psutil.net_if_addrs()) - {"lo"}:
        return "there is a network: run it under .ci/loopback-only"
    if not (AGENTS / "bin" / cli).exists():
        return "not installed; .ci/real-agents does it"
    return "" if config_file(f"agents/{cli}.toml") else "Torch has no such kind yet"


def one_task(stage: Stage, agent: Agent, home: Home) -> tuple[float, float, float]:
    """The waits of one task, in seconds."""
    task = stage.torch.enqueue(WORDS, agent=agent.id)
    task.result(READY_SECONDS).raise_for_status()
    known = time.time()
    taken = (task.record().assigned_at or now()).timestamp()
    steps = json.loads((stage.folder / "agents" / agent.id / "runs" / f"{task.id}.1" / "submission.json").read_bytes())
    accepted = next(step for step in steps["steps"] if step["phase"] == "accepted")
    had = next(request.time for request in home.llm.requests(home.key) if task.id in request.prompt)
    return had - taken, datetime.fromisoformat(accepted["at"]).timestamp() - taken, known - had

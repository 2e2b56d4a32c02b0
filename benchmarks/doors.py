"""How soon a prompt is known to be accepted through a program's door, and typed into the same program, in turns.

It refuses to run where there is more of a network than this machine's own: ``.ci/loopback-only make bench``.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from installed import PATH

from benchmarks.harness import Agent, Stage
from benchmarks.measures import Measure
from benchmarks.real import missing, one_task
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.homes import CodexHome, Home

DOOR, TYPED = "through its server", "typed"


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Two agents of the same Codex, a task for the one and then for the other."""
    if why := missing("codex"):
        return [Measure("codex", None, "", note=why)]
    waits: dict[str, list[tuple[float, float, float]]] = {DOOR: [], TYPED: []}
    with ExitStack() as stack:
        agents = {way: _agent(stack, stage, way) for way in waits}
        for _ in range(5 if quick else 50):
            for way, (agent, home) in agents.items():
                waits[way].append(one_task(stage, agent, home))
    middle = {way: [1000 * median(times) for times in zip(*tasks, strict=True)] for way, tasks in waits.items()}
    measures = []
    for number, what in enumerate(("the model has it", "known to be accepted", "result known after the model has it")):
        door, typed = middle[DOOR][number], middle[TYPED][number]
        measures += [Measure(f"codex {way}: {what}, p50", middle[way][number], "ms") for way in middle]
        measures.append(Measure(f"codex: {what}, {DOOR} / {TYPED}", door / typed, "x"))
    return measures


def _agent(stack: ExitStack, stage: Stage, way: str) -> tuple[Agent, Home]:
    name = "door" if way == DOOR else "typed"
    llm = stack.enter_context(FakeLLM(stage.folder / f"llm-{name}"))
    home = CodexHome(stage.folder / f"home-{name}", llm, f"codex-{name}", PATH)
    stack.callback(home.clear)
    config = home.file("torch/agents/codex.toml", f'base = "codex"\ndoor = {str(way == DOOR).lower()}\n')
    variables = {**home.environment, "TORCH_CONFIG_DIR": str(config.parents[1])}
    agent = stack.enter_context(stage.agent(f"codex-{name}", "codex", home.work, **variables))
    stage.await_ready(agent)
    one_task(stage, agent, home)
    return agent, home

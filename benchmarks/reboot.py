"""How long a machine that lost its power takes to have all its agents back, each with its conversation and its task."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
from fake_kind import CONVERSATION, kind_toml
from fakes.cli.client import FakeCli
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Say, Work
from machine import Machine

from benchmarks.harness import Stage, await_true
from benchmarks.measures import Measure

SECONDS = 300.0
SCENARIO = Scenario(
    default=Turn((Work(3600),)),
    turns=(Turn((Say("It is done."),), match="Go on with the task"),),
)


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """From `up` on, with the broker's data as the crash left it."""
    count = 5 if quick else 50
    with closing(Machine(TORCH_AGENTS_PER_NODE="100")) as machine:
        cli = _kind(machine.folder)
        agents = [f"dev-{number}" for number in range(count)]
        _up(machine, agents)
        tasks = machine.folder / "tasks.yaml"
        tasks.write_text(json.dumps([{"prompt": "a long turn", "agent": agent} for agent in agents]))
        machine.torch("run", "--file", str(tasks), seconds=SECONDS)
        await_true(lambda: len(cli.submitted()) == count, SECONDS, "all work")
        before = _conversations(machine)
        _lose_power(machine)
        begun = time.perf_counter()
        _up(machine, agents)
        ready = time.perf_counter() - begun
        await_true(lambda: len(cli.submitted()) == 2 * count, SECONDS, "all have been told to go on")
        told = time.perf_counter() - begun
        kept = sum(before[agent] == conversation for agent, conversation in _conversations(machine).items())
        machine.torch("down", seconds=SECONDS)
    name = f"{count} agents of a fake kind, killed in their turns"
    return [
        Measure(f"{name}: `up` to all ready", ready, "s", goal=60),
        Measure(f"{name}: `up` to all told to go on", told, "s", goal=60),
        Measure("of them with their conversation", kept, "agents", note=f"of {count}"),
    ]


def _kind(folder: Path) -> FakeCli:
    cli = FakeCli(folder / "fake", SCENARIO)
    kinds = folder / "config" / "agents"
    kinds.mkdir(parents=True)
    toml = kind_toml([str(cli.program), "--settings", "{hooks}"], hooks=True)
    (kinds / "fake.toml").write_text(toml + CONVERSATION)
    return cli


def _up(machine: Machine, agents: list[str]) -> None:
    words = [word for agent in agents for word in ("--agent", f"{agent}:developer::fake")]
    machine.torch("up", "--detach", "--no-flower", "--no-beat", *words, seconds=SECONDS)


def _conversations(machine: Machine) -> dict[str, str]:
    files = (machine.state / "agents").glob("*/journal.json")
    return {file.parent.name: json.loads(file.read_bytes())["conversation"] for file in files}


def _lose_power(machine: Machine) -> None:
    """Kill every process of the machine at once."""
    left = machine.survivors()
    for act in (psutil.Process.suspend, psutil.Process.kill):
        _each(left, act)
    psutil.wait_procs(left, timeout=10)


def _each(processes: list[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        act(process)

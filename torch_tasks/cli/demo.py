"""``torch-tasks demo``."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from celery import chain

from torch_tasks.cli.output import as_table, waiting, wanted
from torch_tasks.cli.stack import await_agents
from torch_tasks.cli.tables import Column, cut, state, wrapped
from torch_tasks.client import Task, Torch
from torch_tasks.errors import AgentUnavailable
from torch_tasks.machine.stack import FLOWER_USER, Stack
from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.task import TaskRecord, TaskResult, TaskSpec
from torch_tasks.settings import settings
from torch_tasks.system.processes import end_on_signals
from torch_tasks.tasks.run import run

_COLUMNS = (
    Column("TASK"),
    cut("FOR"),
    Column("PRIORITY", spare=1),
    Column("RAN ON"),
    state("RESULT"),
    wrapped("EVIDENCE", least=14),
    cut("ANSWER"),
)
_AGENTS = ("developer-1:developer:python,git", "qa-1:qa:python", "docs-1:writer:markdown")

_FUNCTION = """\
cat > fib.py <<'PYTHON'
def fib(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
PYTHON
echo "wrote $PWD/fib.py"
"""
_TEST = """\
echo "from the developer: $(python3 -c 'import json, os
print(json.load(open(os.environ["TORCH_CONTEXT"]))["earlier"][0]["answer"].strip())')"
python3 -c 'from fib import fib; assert fib(10) == 55; print("fib(10) =", fib(10))'
"""


@click.command()
@click.option("--stay", is_flag=True, help="Keep everything running until Ctrl-C, to look around in Flower.")
def demo(stay: bool) -> None:
    """Run six tasks on three shell agents; show where each ran, and the evidence that it was done."""
    end_on_signals()
    home = Path(tempfile.mkdtemp(prefix="torch-demo-"))
    # Before anything reads the settings: the demo has a fleet of its own.
    os.environ.pop("TORCH_BROKER_URL", None)
    os.environ["TORCH_STATE_DIR"] = str(home / "state")
    stack = Stack(settings())
    try:
        good = _show(stack, home / "project", stay)
    finally:
        stack.down(keep_agents=False)
        shutil.rmtree(home)
    click.echo("\neverything has ended, nothing is left running" if good else "\nnot every task ended as it should")
    if not stay:
        click.echo("'torch-tasks demo --stay' keeps it running until Ctrl-C, to look around in Flower")
    sys.exit(0 if good else 1)


def _show(stack: Stack, project: Path, stay: bool) -> bool:
    project.mkdir()
    begun = time.monotonic()
    with waiting("starting broker, node worker, three agents, beat and Flower"):
        agents = AgentSpec.parse_all(_AGENTS)
        stack.up(agents, beat=True, flower=True)
        for agent, reason in await_agents(stack, agents, {}).items():
            raise AgentUnavailable(f"agent {agent} is not ready: {reason}")
    click.echo(f"up after {time.monotonic() - begun:.1f} s: broker, node worker, {len(_AGENTS)} agents, beat, Flower\n")
    with waiting("running six tasks"):
        expected, chained = _hand_out(str(project))
        chained.get(timeout=60, propagate=False)  # its second task is accepted only when the first has ended
        ends = [(task.result(timeout=60), task.record(), status) for task, status in expected]
    as_table(_COLUMNS, [_row(result, record, wanted(record)) for result, record, _ in ends])
    if stay:
        if flower := stack.processes.find("flower"):
            click.echo(f"\nFlower: {flower.facts['url']}  user {FLOWER_USER}, password {stack.flower_password()[0]}")
        click.echo("Ctrl-C ends the demo.")
        try:
            while stack.processes.find("up"):
                time.sleep(1)
        except KeyboardInterrupt:
            click.echo("ending …")
    return all(result.status == status for result, _, status in ends)


def _hand_out(project: str) -> tuple[list[tuple[Task, str]], Any]:
    """Enqueue six tasks; returns each with its expected status, and the chain that two of them form."""
    torch = Torch()
    made = [
        (torch.enqueue("python3 -c 'print(sum(range(1000)))'", skills=["python"]), "succeeded"),
        (torch.enqueue("echo '# Notes' > NOTES.md; cat NOTES.md", role="writer", workdir=project), "succeeded"),
        (torch.enqueue("echo release > RELEASE; echo tagged", role="developer", skills=["git"], workdir=project,
                       priority="urgent", check="grep -q release RELEASE"), "succeeded"),
        (torch.enqueue("echo 'all tests pass, trust me'", role="qa", workdir=project, priority="low",
                       check="test -e test-report.xml"), "failed"),
    ]  # fmt: skip
    write = TaskSpec(prompt=_FUNCTION, role="developer", workdir=project)
    test = TaskSpec(prompt=_TEST, role="qa", skills=("python",), workdir=project)
    chained = chain(run.s(write), run.s(test)).apply_async()
    return [*made, (torch.task(write.id), "succeeded"), (torch.task(test.id), "succeeded")], chained


def _row(result: TaskResult, record: TaskRecord, wanted: str) -> tuple[Any, ...]:
    evidence = ", ".join(f"{'✓' if e.passed else '✗'} {e.detail.splitlines()[0]}" for e in result.evidence)
    answer = (result.answer.strip().splitlines() or [""])[-1]
    return record.spec.id[:8], wanted, record.spec.priority, result.agent, result.status, evidence, answer

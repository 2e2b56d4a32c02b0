"""From an agent's pane everything goes through the agent's desk, and nothing needs the broker's address."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

import pytest
from nodes import AgentWorker, Node

from torch_tasks import TaskResult, Torch

SECONDS = 60
Do = Callable[..., TaskResult]


@pytest.fixture(scope="module")
def asks(shared_node: Node) -> AgentWorker:
    """The agent in whose pane the tests' scripts run."""
    return shared_node.agent_worker("boss-1", "boss")


@pytest.fixture(scope="module")
def works(shared_node: Node) -> AgentWorker:
    """The agent that gets what is enqueued there."""
    return shared_node.agent_worker("developer-1", "developer")


@pytest.fixture
def do(asks: AgentWorker, works: AgentWorker, torch: Torch) -> Do:
    """Has the agent run a script and returns how that ended."""

    def do(script: str, **fields: Any) -> TaskResult:
        return torch.enqueue(f"{{ {script}; }} 2>&1", agent="boss-1", **fields).result(timeout=SECONDS)

    return do


def python(program: str) -> str:
    """The command line of a program in Python."""
    return f"unset TORCH_BROKER_URL; {shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def test_torch_enqueues_and_waits(do: Do, torch: Torch) -> None:
    done = do(
        python(
            "from torch_tasks import Torch\n"
            "task = Torch().enqueue('echo from a pane', role='developer')\n"
            "print(task.id, task.result(timeout=30).answer)"
        )
    )
    task_id, answer = done.answer.split(maxsplit=1)
    assert answer.strip() == "from a pane"
    enqueued_by = torch.task(task_id).record().enqueued_by
    assert enqueued_by
    assert (enqueued_by.kind, enqueued_by.name) == ("agent", "boss-1")


CANVAS = """
import json
from celery import chain, chord, group
from torch_tasks.tasks.run import run

READ = "import json, os; print([one['answer'] for one in json.load(open(os.environ['TORCH_CONTEXT']))['earlier']])"

def on_developer(prompt):
    return run.s(prompt, role="developer")

def answers(result):
    got = result.get(timeout=30)
    return [one["answer"] for one in got] if isinstance(got, list) else got["answer"]

def reads():
    return on_developer(f'python3 -c "{READ}"')

print(json.dumps([
    answers(run.delay("echo one", role="developer")),
    answers(run.apply_async(("echo two",), {"role": "developer"}, countdown=0.1)),
    answers(chain(on_developer("echo three"), reads()).delay()),
    answers(group(on_developer(f"echo {n}") for n in range(3)).delay()),
    answers(chord([on_developer("echo a"), on_developer("echo b")])(reads())),
]))
"""


def test_delay_apply_async_and_canvas_work_as_they_do_elsewhere(do: Do) -> None:
    done = do(python(CANVAS))
    assert done.succeeded, done.answer
    alone, later, after, together, last = json.loads(done.answer)
    assert (alone, later, together) == ("one\n", "two\n", ["0\n", "1\n", "2\n"])
    assert (after, last) == ("['three\\n']\n", "['a\\n', 'b\\n']\n")

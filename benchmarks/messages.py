"""How long a message takes into its receiver's inbox, and into its pane, beside the old script.

Shells run each message as a command line; the coding agents are fake ones (``tests/fakes/cli``) in real panes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from benchmarks.fake_agents import fake_agents, wall
from benchmarks.harness import READY_SECONDS, Stage, await_true, clock
from benchmarks.measures import Measure, percentile
from benchmarks.old_script import OldScript
from torch_tasks.communication import NovaOrchestrator
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import TaskState

WORDS = {"shell": ": look at the tests", "coding agent": "look at the tests\nand fix what fails"}
GOAL_MS = 100.0


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Growing fleets of either kind; one message after the other, each to the next agent, which is idle by then."""
    sizes, times = ((1, 4), 12) if quick else ((1, 10, 50), 200)
    measures: list[Measure] = []
    for kind, words in WORDS.items():
        with ExitStack() as fleet:
            ids: list[str] = []
            for size in sizes:
                new = [f"{kind.split()[0]}-{number}" for number in range(len(ids) + 1, size + 1)]
                fleet.enter_context(stage.hosted(new) if kind == "shell" else fake_agents(stage, new))
                ids += new
                measures += _ways(stage, kind, ids, words, max(times, size))
    return [*measures, *_after_tasks(stage, 5 if quick else 40), *_old_way(stage, 5 if quick else 30)]


def _ways(stage: Stage, kind: str, ids: Sequence[str], words: str, times: int) -> Iterator[Measure]:
    inbox, pane = [], []
    for number in range(times):
        sent, accepted = _one(stage, ids[number % len(ids)], words)
        inbox.append(sent)
        pane.append(accepted)
    where = f"{len(ids)} {kind}{'s' if len(ids) > 1 else ''}"
    yield from _shown(f"{where}: send → in the inbox", inbox, None)
    yield from _shown(f"{where}: send → accepted in the pane", pane, GOAL_MS)


def _one(stage: Stage, agent_id: str, words: str) -> tuple[float, float]:
    """Seconds until the message is in the inbox, and until the program has taken it."""
    nova = NovaOrchestrator()
    await_true(lambda: stage.torch.agent(agent_id).state is AgentState.READY, 30, f"{agent_id} is idle")
    begun, known = time.time(), {}
    took = clock(lambda: known.update(sent=nova.send_message(agent_id, words)))
    nova.await_delivery(known["sent"].id, READY_SECONDS)
    record = nova.message(known["sent"].id)
    assert record.delivered_at
    return took, record.delivered_at.timestamp() - begun


def _after_tasks(stage: Stage, times: int) -> Iterator[Measure]:
    """How long a message that came during a task is delivered after its end, beside one that finds an idle agent."""
    idle, after = [], []
    with stage.hosted(["shell-a"]) as (agent,):
        for _ in range(times):
            idle.append(_one(stage, agent.id, WORDS["shell"])[1])
            after.append(_after_task(stage, agent.id))
    yield from _shown("a shell: end of its task → a waiting message accepted in the pane", after, None)
    ratio = percentile(after, 50) / percentile(idle, 50)
    yield Measure("the same, p50, beside that of a message to an idle shell", ratio, "times")


def _after_task(stage: Stage, agent_id: str) -> float:
    """Seconds from the end of a task until the program has the message that came meanwhile."""
    task, nova = stage.torch.enqueue("sleep 0.3", agent=agent_id), NovaOrchestrator()
    await_true(lambda: task.status is TaskState.RUNNING, READY_SECONDS, "the task runs")
    sent = nova.send_message(agent_id, WORDS["shell"])
    nova.await_delivery(sent.id, READY_SECONDS)
    ended, delivered = task.record().finished_at, nova.message(sent.id).delivered_at
    assert ended
    assert delivered
    return (delivered - ended).total_seconds()


def _shown(what: str, seconds: Sequence[float], mean_goal: float | None) -> Iterator[Measure]:
    yield Measure(f"{what}, mean", 1000 * sum(seconds) / len(seconds), "ms", goal=mean_goal)
    for percent in (50, 95, 99):
        yield Measure(f"{what}, p{percent}", 1000 * percentile(seconds, percent), "ms")
    yield Measure(f"{what}, max", 1000 * max(seconds), "ms")


def _old_way(stage: Stage, times: int) -> Iterator[Measure]:
    """The old script does not wait for the program: it is measured until the model has the words."""
    called, had = [], []
    with OldScript(stage.folder / "old") as old:
        for number in range(times):
            begun = time.time()
            called.append(clock(lambda number=number: old.send(f"look at the tests ({number})")))  # type: ignore[misc]
            await_true(lambda number=number: len(old.cli.submitted()) > number, READY_SECONDS, "it has it")  # type: ignore[misc]
            had.append(wall(old.cli.records("submitted")[-1]) - begun)
            await_true(lambda number=number: len(old.cli.records("turn_over")) > number, READY_SECONDS, "it is done")  # type: ignore[misc]
    yield from _shown("the old script: called → it returns", called, None)
    yield from _shown("the old script: called → the model has it", had, None)

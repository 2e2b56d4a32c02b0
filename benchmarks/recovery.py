"""How long a task stands still when its worker, or all that could bring its worker back, dies."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import psutil

from benchmarks.harness import READY_SECONDS, ROLE, ROOT, Agent, Stage, await_true, end
from benchmarks.measures import Measure

KEPT = "kept-1"


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Adopted by the next worker of the same agent; taken over by another agent."""
    adopted = [*adoptions(stage, 2 if quick else 10)]
    taken_over = [*takeovers(stage, 1 if quick else 3)]
    return [
        Measure("kill -9 of an agent worker → its task watched again, same pane; median", median(adopted), "s"),
        Measure("the same, at most", max(adopted), "s", goal=3),
        Measure("kill -9 of worker and terminal, no node worker → running elsewhere; median", median(taken_over), "s"),
        Measure("the same, at most", max(taken_over), "s", goal=30),
    ]


def adoptions(stage: Stage, count: int) -> Iterator[float]:
    """Seconds until the next worker of the same agent watches the task, so many times."""
    with _node(stage):
        await_true(lambda: _hosted(stage) is not None, READY_SECONDS, "the kept agent is there")
        for _ in range(count):
            task = stage.torch.enqueue("sleep 1000", agent=KEPT)
            await_true(lambda task=task: _works_on(stage, task.id, -1), READY_SECONDS, "the task runs")  # type: ignore[misc]
            former = stage.torch.agent(KEPT)
            yield _until(
                lambda former=former: psutil.Process(former.pid).kill(),  # type: ignore[misc]
                lambda task=task, former=former: _works_on(stage, task.id, former.incarnation),  # type: ignore[misc]
            )
            task.cancel()
            task.result(READY_SECONDS)
            # Crashes with a task done in between are no row of crashes, which would be answered more and more slowly.
            stage.torch.enqueue(":", agent=KEPT).result(READY_SECONDS).raise_for_status()


def _hosted(stage: Stage) -> int | None:
    return next((info.pid for info in stage.torch.agents(online=True) if info.agent_id == KEPT), None)


def _works_on(stage: Stage, task_id: str, after: int) -> bool:
    """A worker of a later incarnation watches the task."""
    info = stage.torch.agent(KEPT)
    return info.incarnation > after and info.current_task == task_id


@contextmanager
def _node(stage: Stage) -> Iterator[None]:
    argv = [sys.executable, "-m", "torch_tasks.cli", "node", "--agent", f"{KEPT}:{ROLE}"]
    with (stage.folder / "node.log").open("wb") as output:
        node = psutil.Popen(argv, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    finally:
        end(node)
        subprocess.run(["tmux", "-S", str(stage.folder / "agents" / KEPT / "tmux"), "kill-server"], check=False)


def takeovers(stage: Stage, count: int) -> Iterator[float]:
    """Seconds until the task of an agent that is gone runs on another one, so many times."""
    return (_takeover(stage, number) for number in range(count))


def _takeover(stage: Stage, number: int) -> float:
    begun = stage.folder / f"begun-{number}"
    with stage.agents(2) as agents:
        task = stage.torch.enqueue(f"echo $TORCH_AGENT_ID >> {begun}; sleep 1000", role=ROLE)
        await_true(lambda: _lines(begun) == 1, READY_SECONDS, "the task runs")
        owner = next(agent for agent in agents if agent.id == task.record().agent)
        seconds = _until(lambda: _kill(owner), lambda: _lines(begun) == 2)
        task.cancel()
        task.result(READY_SECONDS)
    return seconds


def _kill(agent: Agent) -> None:
    for process in [agent.worker, *agent.terminal()]:
        with suppress(psutil.NoSuchProcess):  # one takes the other with it
            process.kill()


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def _until(fault: Callable[[], object], condition: Callable[[], bool]) -> float:
    """Seconds from the fault until the condition holds."""
    fault()
    struck = time.perf_counter()
    await_true(condition, READY_SECONDS, "it has recovered")
    return time.perf_counter() - struck

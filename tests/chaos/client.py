"""The client: a process that hands tasks in, each under an id of its own, and notes which were accepted.

``python -m chaos.client FOLDER ORDER``, the order as JSON. A task counts as accepted when ``enqueue`` has returned; as
long as it says that no broker answers, it is called again.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_tasks import Torch
from torch_tasks.errors import BrokerUnreachable

#: What a task does: one line when its effect begins, one when it is complete. Both are appended in one write.
SCRIPT = """\
effect() {{ echo "$1 ${{TORCH_CONTEXT%/*}} $EPOCHREALTIME $TORCH_AGENT_ID $TORCH_INCARNATION" >>{file}; }}
effect start
sleep {seconds:.2f}
effect end
echo {answer}
"""
PRIORITIES = ("urgent", "high", "normal", "normal", "normal", "low")
SHORTEST = 0.2
SPOOLED = 0.2
"""The share of tasks that are accepted also while the broker is away."""
RETRIES = 50
AGAIN_SECONDS = 0.2


@dataclass(frozen=True)
class Order:
    """What a client hands in: so many tasks within the seconds, for these agents."""

    count: int
    seconds: float
    seed: int
    agents: tuple[str, ...]
    first: int = 1
    """The number of the first task."""
    longest: float = 2.4
    """How long a task takes at most: enough to keep agents busy, so that faults strike in the middle of effects."""

    @property
    def tasks(self) -> list[str]:
        """The ids of all tasks."""
        return [task_id(number) for number in range(self.first, self.first + self.count)]


def task_id(number: int) -> str:
    """The id of the task with this number."""
    return f"task-{number:04d}"


def answer(task: str) -> str:
    """What the task prints."""
    return f"done {task}"


def script(task: str, effects: Path, seconds: float) -> str:
    """The prompt of the task: it takes so long, and leaves its traces in a file of its own."""
    return SCRIPT.format(file=effects / task, seconds=seconds, answer=answer(task))


def main(folder: Path, order: Order) -> None:
    """Hand them all in."""
    choose = random.Random(order.seed)
    torch = Torch()
    for task in order.tasks:
        prompt = script(task, folder / "effects", choose.uniform(SHORTEST, order.longest))
        _insist(torch, task, prompt, **_options(choose, order))
        with (folder / "accepted").open("a") as accepted:
            accepted.write(f"{task} {time.time()}\n")
        time.sleep(choose.uniform(0, 2 * order.seconds / order.count))


def _options(choose: random.Random, order: Order) -> dict[str, Any]:
    alone = {"agent": choose.choice(order.agents)}
    whom = choose.choice([{"role": "developer"}, {"role": "qa"}, {"skills": ["git"]}, alone])
    return {**whom, "priority": choose.choice(PRIORITIES), "spool": choose.random() < SPOOLED}


def _insist(torch: Torch, task: str, prompt: str, **options: Any) -> None:
    while True:
        try:
            torch.enqueue(prompt, id=task, max_retries=RETRIES, **options)
            return
        except BrokerUnreachable as error:
            print(f"{task}: {error}", flush=True)
            time.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Order(**json.loads(sys.argv[2])))

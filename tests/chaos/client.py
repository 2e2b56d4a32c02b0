"""The client: a process that hands tasks in, each under an id of its own, and notes which were accepted.

``python -m chaos.client FOLDER FIRST COUNT SECONDS SEED AGENT…``: tasks FIRST … FIRST+COUNT-1, spread over SECONDS.
A task counts as accepted when ``enqueue`` has returned; as long as it says that no broker answers, it is called again.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

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
#: How long a task takes: together they keep most of the agents busy, so that faults strike in the middle of effects.
SECONDS = (0.2, 2.4)
RETRIES = 50
AGAIN_SECONDS = 0.2


def task_id(number: int) -> str:
    """The id of the task with this number."""
    return f"task-{number:04d}"


def answer(task: str) -> str:
    """What the task prints."""
    return f"done {task}"


def script(task: str, effects: Path, seconds: float) -> str:
    """The prompt of the task: it takes so long, and leaves its traces in a file of its own."""
    return SCRIPT.format(file=effects / task, seconds=seconds, answer=answer(task))


def main(folder: Path, first: int, count: int, seconds: float, seed: int, agents: Sequence[str]) -> None:
    """Hand them all in."""
    choose = random.Random(seed)
    torch = Torch()
    for number in range(first, first + count):
        task = task_id(number)
        prompt = script(task, folder / "effects", choose.uniform(*SECONDS))
        whom = choose.choice(
            [{"role": "developer"}, {"role": "qa"}, {"skills": ["git"]}, {"agent": choose.choice(agents)}]
        )
        priority = choose.choice(PRIORITIES)
        _insist(torch, prompt, id=task, priority=priority, **whom)
        with (folder / "accepted").open("a") as accepted:
            accepted.write(f"{task} {time.time()}\n")
        time.sleep(choose.uniform(0, 2 * seconds / count))


def _insist(torch: Torch, prompt: str, **options: object) -> None:
    while True:
        try:
            torch.enqueue(prompt, max_retries=RETRIES, **options)
            return
        except BrokerUnreachable as error:
            print(f"{options['id']}: {error}", flush=True)
            time.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])

"""The same plain Celery app as :mod:`benchmarks.bare`, over the leased transport."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.bare import bare_app
from torch_tasks.transport.amqp import LeasedAMQP

UNREAD = "leased.unread"
app = bare_app("leased", LeasedAMQP)


@app.task
def nothing(text: str) -> None:
    """As little as a task can do."""


@app.task
def hold(file: str, seconds: float) -> None:
    """Note the process and the time; take so long if no process has begun before."""
    path = Path(file)
    begun_before = path.exists()
    with path.open("a") as begun:
        begun.write(f"{os.getpid()} {time.time()}\n")
    if not begun_before:
        time.sleep(seconds)

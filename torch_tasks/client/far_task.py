"""A task that was handed to an agent of another fleet, for the program that did it."""

from __future__ import annotations

import time

from torch_tasks import operations
from torch_tasks.errors import TaskNotFinished, TaskNotFound
from torch_tasks.link import Link
from torch_tasks.operations.operation import WAIT_SECONDS, Asked, Operation, Reply

_PAUSE_SECONDS = 0.2


class FarTaskLink:
    """Asks the other fleet about the task, and waits a while if it is still on its way there."""

    def __init__(self, task_id: str, home: Link, far: Link) -> None:
        self._itself = operations.tasks.OfTask.build(task_id=task_id)
        self._home = home
        self._far = far

    def perform(self, operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
        if operation.name == operations.tasks.is_spooled.name:
            return self._home.perform(operation, asked, key)
        deadline = time.monotonic() + WAIT_SECONDS
        while self._home.perform(operations.tasks.is_spooled, self._itself):
            if time.monotonic() >= deadline:
                raise TaskNotFinished(
                    f"task {self._itself.task_id} waits here for the way to its fleet, which does not take it now; it "
                    "goes there by itself, ask again later"
                )
            time.sleep(_PAUSE_SECONDS)
        try:
            return self._far.perform(operation, asked, key)
        except TaskNotFound as error:
            hint = "if that fleet refused it, your inbox says why ('torch-tasks inbox')"
            raise TaskNotFound(f"{error}; {hint}") from None

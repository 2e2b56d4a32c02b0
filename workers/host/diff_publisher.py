"""What an agent changed in a task, for people who look at it elsewhere."""

from __future__ import annotations

import threading
from pathlib import Path

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.model.task_diff import TaskDiff
from torch_tasks.system.loops import in_background
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.git.task_diff import diff_of


class DiffPublisher:
    """Publishes the changes of one agent's tasks, one at a time, in a thread of its own: git may be slow."""

    def __init__(self, attempts: Path, fleet: Fleet) -> None:
        self._attempts = attempts
        self._fleet = fleet
        self._busy = threading.Lock()

    def publish(self, task_id: str, ticket: str) -> bool:
        """Publish them to the one with the ticket; false if another one is being served."""
        if not self._busy.acquire(blocking=False):
            return False

        tried = threading.Event()

        def show() -> None:
            try:
                self._fleet.client.publish(keys.task_diff(ticket), self._changes(task_id).model_dump_json())
            finally:
                tried.set()
                self._busy.release()

        in_background("diff", show, until=tried.is_set)
        return True

    def _changes(self, task_id: str) -> TaskDiff:
        numbers = (_number(one, task_id) for one in self._attempts.iterdir())
        for number in sorted((int(one) for one in numbers if one.isdecimal()), reverse=True):
            attempt = AttemptFolder(self._attempts, task_id, number)
            if attempt.tree_file.exists():
                return diff_of(attempt)
        return TaskDiff(why_not="it was not done in a git tree that Torch looked at")


def _number(folder: Path, task_id: str) -> str:
    """The number of the attempt at the task whose folder this is; of another task's, nothing."""
    name, _, number = folder.name.rpartition(".")
    return number if name == task_id else ""

"""All processes that one thing of a state folder has led to, in whichever life of Torch."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from torch_tasks.system.marks import has_mark, mark_of, marked_environment, marking_words
from torch_tasks.system.processes import end_all

#: How often what is left is ended again: it may have started others meanwhile.
_ROUNDS = 5


class Lineage:
    """Finds and ends these processes by their mark: also those that have become daemons, or lost their environment."""

    def __init__(self, state_dir: Path, name: str) -> None:
        self._mark = mark_of(str(state_dir), name)
        self.environment = marked_environment(self._mark)
        """The variable with which the first of them is to be started."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words before its command."""
        return marking_words(self._mark)

    def members(self) -> list[psutil.Process]:
        """Those that live now."""
        others = (process for process in psutil.process_iter() if process.pid != os.getpid())
        return [process for process in others if has_mark(process, self._mark) and _is_living(process)]

    def end(self, grace: float) -> list[int]:
        """End all of them: terminate, then kill after the grace; returns the numbers of those that were there."""
        ended: list[int] = []
        for _ in range(_ROUNDS):
            if not (left := self.members()):
                break
            ended += [process.pid for process in left]
            end_all(left, grace)
        return ended


def _is_living(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

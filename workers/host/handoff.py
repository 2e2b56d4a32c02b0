"""What is noted of a running task for whoever may have to go on with it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import redis

from torch_tasks.errors import TorchError
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import now
from torch_tasks.model.task import Handoff, TaskSpec
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.workers.git import shown
from torch_tasks.workers.host.terminal import Terminal

log = logging.getLogger(__name__)

_SCREEN_LIMIT = 8000
_DIFF_LIMIT = 16000


class Handoffs:
    """Notes, at intervals, what the pane shows and what changed in the workdir of one running task."""

    def __init__(self, records: TaskRecords, interval: float) -> None:
        self._records = records
        self._interval = interval
        self._next = time.monotonic() + interval
        self._last: Handoff | None = None

    def note(self, spec: TaskSpec, info: AgentInfo, terminal: Terminal) -> None:
        """Write it into the task's record if it is time and something is new."""
        if time.monotonic() >= self._next:
            self.note_now(spec, info, terminal)

    def note_now(self, spec: TaskSpec, info: AgentInfo, terminal: Terminal) -> None:
        """Write it into the task's record if something is new."""
        self._next = time.monotonic() + self._interval
        workdir = Path(spec.workdir or info.workdir)
        try:
            handoff = Handoff(
                agent=info.agent_id,
                node=info.node,
                noted_at=now(),
                screen=terminal.pane.screen()[-_SCREEN_LIMIT:],
                branch=shown.branch(workdir),
                diff=shown.changes(workdir, _DIFF_LIMIT),
            )
            if self._last is None or handoff.model_copy(update={"noted_at": self._last.noted_at}) != self._last:
                self._records.hand_off(spec.id, handoff, info)
                self._last = handoff
        except (TorchError, redis.RedisError) as error:
            log.info("%s: nothing noted for a successor: %s", spec.id, error)

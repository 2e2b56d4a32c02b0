"""What an agent's host and each of its attempts at a task share."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch_tasks.errors import TorchError
from torch_tasks.model.agent import AgentState
from torch_tasks.settings import Settings
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.workers.git.task_trees import TaskTrees
from torch_tasks.workers.host.bell import Bell
from torch_tasks.workers.host.guard import Guard
from torch_tasks.workers.host.heed import Heed
from torch_tasks.workers.host.outcome import Outcome
from torch_tasks.workers.host.presence import Presence
from torch_tasks.workers.host.quota import Quota
from torch_tasks.workers.host.runs import Run
from torch_tasks.workers.host.terminal import Terminal
from torch_tasks.workers.programs.kind import AgentKind

log = logging.getLogger(__name__)


@dataclass
class Orders:
    """What the host was told while the agent works."""

    leaving: bool = False
    """The worker is about to stop."""
    retiring: bool = False
    """The agent takes no task that it has not begun, and leaves when it has none."""
    cancelled: str | None = None
    """The task that is not wanted any more."""
    answers: deque[tuple[str, str]] = field(default_factory=deque)
    """Tasks whose agent waits for an answer, with the answers."""


@dataclass(frozen=True)
class Workplace:
    """One agent with its pane, its bell, and its place in the fleet."""

    kind: AgentKind
    terminal: Terminal
    bell: Bell
    presence: Presence
    records: TaskRecords
    settings: Settings
    outcome: Outcome
    orders: Orders
    heed: Heed
    quota: Quota
    guard: Guard
    trees: TaskTrees
    in_between: Callable[[Run], None]
    """What a task's thread does for the agent's messages while it watches the pane."""

    def start(self, folder: Path, task: str | None = None) -> None:
        """Start the agent's program in this folder, in a new pane; for this task, if it is for one."""
        self.presence.show(AgentState.STARTING, task=task)
        self.presence.remember(pane=None)  # nobody adopts the old program for the new one
        try:
            pane, session = self.terminal.start(self.presence.info, folder)
        except TorchError:
            self.presence.show(AgentState.EXITED)
            raise
        self.presence.remember(pane=pane, session=session, kind=self.kind.spec.kind, folder=str(folder))
        log.info("%s: started in pane %s", self.kind.agent_id, pane)

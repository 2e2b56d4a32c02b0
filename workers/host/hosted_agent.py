"""One agent as this worker hosts it: what its host, its attempts at tasks and its messages share."""

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
from torch_tasks.transport.claiming import IntakePause
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.git.task_trees import TaskTrees
from torch_tasks.workers.host.attempt_end import AttemptResults
from torch_tasks.workers.host.holds_watcher import HoldsWatcher
from torch_tasks.workers.host.lifecycle import Lifecycle
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.quota import AccountQuota
from torch_tasks.workers.host.resource_guard import ResourceGuard
from torch_tasks.workers.host.terminal import Bell, Terminal
from torch_tasks.workers.programs.kind import AgentKind

log = logging.getLogger(__name__)


@dataclass
class TaskOrders:
    """What this worker was asked to do with the agent's task."""

    cancelled: str | None = None
    """The task to cancel."""
    answers: deque[tuple[str, str]] = field(default_factory=deque)
    """Tasks that wait for an answer, with the answers."""


@dataclass(frozen=True)
class HostedAgent:
    """One agent with its pane, its bell, and its place in the fleet."""

    kind: AgentKind
    terminal: Terminal
    bell: Bell
    presence: AgentPresence
    records: TaskRecords
    settings: Settings
    results: AttemptResults
    life: Lifecycle
    orders: TaskOrders
    holds: HoldsWatcher
    intake: IntakePause
    quota: AccountQuota
    guard: ResourceGuard
    trees: TaskTrees
    deliver_during_task: Callable[[AttemptFolder], None]
    """Delivers the agent's pressing messages; called by a task's thread while it watches the pane."""

    def start(self, folder: Path, task: str | None = None) -> None:
        """Start the agent's program in this folder, in a new pane, possibly for a task."""
        self.presence.show(AgentState.STARTING, task=task)
        self.presence.remember(pane=None)  # the next worker must not adopt the old program in place of the new one
        try:
            pane, session = self.terminal.start(self.presence.info, folder)
        except TorchError:
            self.presence.show(AgentState.EXITED)
            raise
        self.presence.remember(pane=pane, session=session, kind=self.kind.spec.kind, folder=str(folder))
        log.info("%s: started in pane %s", self.kind.agent_id, pane)

    def adopt(self) -> bool:
        """Take over the pane that a former worker left, if it runs a program of the agent's kind."""
        journal = self.presence.journal
        if journal.pane is None or journal.kind != self.kind.spec.kind:
            return False
        folder = Path(journal.folder or self.presence.info.workdir)
        return self.terminal.adopt(journal.pane, journal.session, folder)

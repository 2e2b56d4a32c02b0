"""One agent as this worker hosts it: what its host, its attempts at tasks and its messages share."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch_tasks import keys
from torch_tasks.errors import TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import write_order
from torch_tasks.model.agent import AgentInfo, AgentSpec, AgentState, Lifetime, RetireOrder
from torch_tasks.settings import Settings
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.workers.git.task_trees import TaskTrees
from torch_tasks.workers.host.attempt_end import AttemptResults
from torch_tasks.workers.host.holds_watcher import HoldsWatcher
from torch_tasks.workers.host.journal import AttemptFolder
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.quota import AccountQuota
from torch_tasks.workers.host.resource_guard import ResourceGuard
from torch_tasks.workers.host.terminal import Bell, Terminal
from torch_tasks.workers.programs.kind import AgentKind

log = logging.getLogger(__name__)


@dataclass
class HostOrders:
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
class HostedAgent:
    """One agent with its pane, its bell, and its place in the fleet."""

    kind: AgentKind
    terminal: Terminal
    bell: Bell
    presence: AgentPresence
    records: TaskRecords
    settings: Settings
    results: AttemptResults
    orders: HostOrders
    holds: HoldsWatcher
    quota: AccountQuota
    guard: ResourceGuard
    trees: TaskTrees
    deliver_during_task: Callable[[AttemptFolder], None]
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


class IdleTimer:
    """How long one agent has had nothing to do."""

    def __init__(self, spec: AgentSpec, fleet: Fleet) -> None:
        self._spec = spec
        self._fleet = fleet
        self._since = time.monotonic()

    def is_over(self, info: AgentInfo, terminal: Terminal, *, has_messages: bool) -> bool:
        """A temporary agent may go: nothing to do, nothing that waits for it, nobody who looks, for long enough."""
        if self._spec.lifetime is Lifetime.PERMANENT or info.retiring:
            return False
        if has_messages or info.state is not AgentState.READY or info.current_task or self._is_wanted(info, terminal):
            self._since = time.monotonic()
            return False
        return time.monotonic() - self._since >= self._fleet.settings.temporary_idle_seconds

    def restart(self) -> None:
        """It has something to do."""
        self._since = time.monotonic()

    def order(self, folder: Path) -> None:
        """Have it retire."""
        seconds = time.monotonic() - self._since
        write_order(folder, RetireOrder(by=self._spec.id, note=f"had nothing to do for {seconds:.0f} s"))

    def _is_wanted(self, info: AgentInfo, terminal: Terminal) -> bool:
        look = terminal.pane.look() if terminal.alive else None
        if look and look.attached:
            return True
        return bool(self._fleet.deliveries.waiting(keys.agent_queue(info.agent_id)))

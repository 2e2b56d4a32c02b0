"""One agent as this worker hosts it: what its host, its attempts at tasks and its messages share."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch_tasks.errors import TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentSpec, AgentState
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
    """The task that is to be cancelled."""
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
    life: Lifecycle
    orders: TaskOrders
    holds: HoldsWatcher
    intake: IntakePause
    quota: AccountQuota
    guard: ResourceGuard
    trees: TaskTrees
    deliver_during_task: Callable[[AttemptFolder], None]
    """What a task's thread does for the agent's messages while it watches the pane."""

    @classmethod
    def assemble(
        cls,
        spec: AgentSpec,
        fleet: Fleet,
        presence: AgentPresence,
        kind: AgentKind,
        intake: IntakePause,
        *,
        life: Lifecycle,
        holds: HoldsWatcher,
        on_bell: Callable[[], None],
        deliver_during_task: Callable[[AttemptFolder], None],
    ) -> HostedAgent:
        """The parts of an agent whose place is taken; its program is not started yet."""
        settings = fleet.settings
        bell = Bell(presence.folder / "bell", on_bell)
        terminal = Terminal(presence.folder, kind, bell, settings)
        return cls(
            kind=kind,
            terminal=terminal,
            bell=bell,
            presence=presence,
            records=fleet.records,
            settings=settings,
            results=AttemptResults(presence, kind, settings.answer_limit_bytes),
            life=life,
            orders=TaskOrders(),
            holds=holds,
            intake=intake,
            quota=AccountQuota(kind, fleet, intake),
            guard=ResourceGuard(spec.id, terminal, terminal.limits),
            trees=TaskTrees(fleet),
            deliver_during_task=deliver_during_task,
        )

    def start(self, folder: Path, task: str | None = None) -> None:
        """Start the agent's program in this folder, in a new pane; for this task, if it is for one."""
        self.presence.show(AgentState.STARTING, task=task)
        self.presence.remember(pane=None)  # the old program must not be adopted for the new one
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

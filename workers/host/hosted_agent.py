"""One agent as this worker hosts it: what its host, its attempts at tasks and its messages share."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch_tasks.errors import AgentUnavailable, TorchError
from torch_tasks.machine.agent_folder import agent_worker_name
from torch_tasks.machine.certificates import Certificates
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentState
from torch_tasks.model.certificate import ReleaseState
from torch_tasks.model.host import Detached
from torch_tasks.security.audit import note_event
from torch_tasks.settings import Settings
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.system.processes import Processes
from torch_tasks.system.tally import tally
from torch_tasks.transport.claiming import IntakePause
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.git.task_trees import TaskTrees
from torch_tasks.workers.host.attempt_end import AttemptResults
from torch_tasks.workers.host.holds_watcher import HoldsWatcher
from torch_tasks.workers.host.lifecycle import HostPhase, Lifecycle
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.quota import AccountQuota
from torch_tasks.workers.host.resource_guard import ResourceGuard
from torch_tasks.workers.host.terminal import Bell, Terminal
from torch_tasks.workers.programs.installed import InstalledRelease, installed_release, known_release, why_held
from torch_tasks.workers.programs.kind import AgentKind, login_hint
from torch_tasks.workers.sandbox.decision import Boxing

log = logging.getLogger(__name__)


@dataclass
class TaskOrders:
    """What this worker was asked to do with the agent's task."""

    cancelled: str | None = None
    """The task to cancel."""
    answers: deque[tuple[str, str]] = field(default_factory=deque)
    """Tasks that wait for an answer, with the answers."""
    tickets: dict[str, bool] = field(default_factory=dict)
    """The answers that people gave, by their tickets, each with whether something was asked that takes it."""
    changes: int = 0
    """How often this worker was told that the task's record has changed."""


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
    has_messages: Callable[[], bool]
    """Whether a message waits for the agent, or is being answered."""
    deliver_during_task: Callable[[AttemptFolder], None]
    """Delivers the agent's pressing messages; called by a task's thread while it watches the pane."""

    def look_at_record(self) -> None:
        """Have who works on the task look at its record now: somebody said that it has changed."""
        self.orders.changes += 1
        self.bell.ring()

    def start(self, folder: Path, task: str | None = None, *, anew: bool = False) -> None:
        """Start the agent's program in this folder, in a new pane, possibly for a task.

        It goes on with the conversation that the agent had in this folder, unless it shall begin ``anew`` or cannot.
        Raises :class:`Detached` if the program's release has changed, and must be tried before.
        """
        self._leave_if_release_is_held()
        self.presence.show(AgentState.STARTING, task=task)
        resumes = None if anew else self._conversation_in(folder)
        self.presence.remember(pane=None)  # the next worker must not adopt the old program in place of the new one
        try:
            try:
                self._start(folder, task, resumes)
            except AgentUnavailable as error:
                if resumes is None:
                    raise
                log.warning("%s: begins a new conversation, as it cannot go on: %s", self.kind.agent_id, error)
                self._start(folder, task, None)
        except TorchError:
            self.presence.remember(pane=None)
            self.presence.show(AgentState.EXITED)
            raise
        self.note_conversation()
        tally().count(metrics.PROGRAMS_STARTED, role=self.presence.info.role, kind=self.kind.spec.kind)
        log.info("%s: started in pane %s", self.kind.agent_id, self.presence.journal.pane)
        note_event("agent.started", f"agent {self.kind.agent_id}", why=f"{self.kind.spec.kind} in {folder}")

    def _start(self, folder: Path, task: str | None, resumes: str | None) -> None:
        pane, session = self.terminal.start(self.presence.info, folder, resumes)
        # Before it is ready: a person may have to see to it, and the next worker goes on with it.
        self.presence.remember(
            pane=pane,
            session=session,
            kind=self.kind.spec.kind,
            folder=str(folder),
            conversation=self.kind.given_conversation,
            sandbox=self.terminal.boxing.in_words,
        )
        self.presence.publish(sandbox=self.terminal.boxing.in_words)
        self._note_release(installed_release(self.kind.spec.kind, Certificates(self.settings.state)))
        self.presence.show(AgentState.STARTING, task=task)
        self._await_start()

    def _leave_if_release_is_held(self) -> None:
        """Have this worker leave if its node worker would not start the program in the release that is installed now.

        The node worker then has that release tried, and starts the next worker when nothing stands against it. So
        what it has just started a worker for is not asked again.
        """
        if self.life.phase is HostPhase.OPENING or not self._is_kept:
            return
        why = why_held(self.kind.spec.kind, self.presence.journal.release, self.settings)
        if why:
            log.warning("%s: its worker leaves: %s", self.kind.agent_id, why)
            self.life.move_to(HostPhase.LEAVING)
            os.kill(os.getpid(), signal.SIGTERM)
            raise Detached

    @property
    def _is_kept(self) -> bool:
        """Whether a node worker keeps this worker, and none that a person has started by hand."""
        kept = Processes(self.settings.state.run).find(agent_worker_name(self.kind.agent_id))
        return kept is not None and kept.pid == os.getpid()

    def _conversation_in(self, folder: Path) -> str | None:
        """The agent's conversation, if a new program in this folder can go on with it."""
        journal = self.presence.journal
        if journal.kind != self.kind.spec.kind or journal.folder != str(folder):
            return None
        self.kind.given_conversation = journal.conversation
        conversation = self.kind.conversation  # its program may have named another one since
        return conversation if conversation and self.kind.is_kept(conversation) else None

    def note_conversation(self) -> None:
        """Keep in the journal which conversation the program has."""
        if self.kind.conversation != self.presence.journal.conversation:
            self.presence.remember(conversation=self.kind.conversation)

    def _note_release(self, runs: InstalledRelease) -> None:
        """Keep which release runs in the pane, and show the fleet what is known of it."""
        self.presence.remember(release=runs.release)
        self.presence.publish(release=runs.release, release_state=runs.release_state)
        if runs.release_state not in (None, ReleaseState.CERTIFIED):
            log.warning("%s: release %s is %s: %s", self.kind.agent_id, runs.release, runs.release_state, runs.why)

    def _await_start(self) -> None:
        self.terminal.await_start(is_leaving=lambda: self.life.is_leaving)
        if held_up := self.terminal.held_up:
            agent_id = self.kind.agent_id
            hint = login_hint(agent_id) if held_up.state is AgentState.LOGIN else held_up.asks
            log.warning("%s is held up: %s", agent_id, hint)

    def adopt(self) -> bool:
        """Take over the pane that a former worker left, if it runs a program of the agent's kind."""
        journal = self.presence.journal
        if journal.pane is None or journal.kind != self.kind.spec.kind:
            return False
        folder = Path(journal.folder or self.presence.info.workdir)
        self.kind.given_conversation = journal.conversation
        if not self.terminal.adopt(journal.pane, journal.session, folder, Boxing.read(journal.sandbox)):
            return False
        self.presence.publish(sandbox=journal.sandbox)
        if journal.release:
            self._note_release(known_release(journal.kind, journal.release, Certificates(self.settings.state)))
        if not self.kind.has_started:
            self._await_start()
        return True

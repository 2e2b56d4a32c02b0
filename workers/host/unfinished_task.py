"""The task that an agent's pane was left with: kept until its record is settled, or dropped if the agent lost it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum

from torch_tasks.errors import BrokerAway
from torch_tasks.model.task import HELD, FailureKind, TaskState
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.host.attempt_end import is_lost
from torch_tasks.workers.host.cut_off import CutOffAttempt
from torch_tasks.workers.host.hosted_agent import HostedAgent

log = logging.getLogger(__name__)


class UnfinishedDecision(Enum):
    """What becomes of the task that the pane was left with."""

    KEEP = "keep"
    """It is this agent's: its message comes to this worker, which watches it to its end or reports how it ended."""
    CLOSE = "close"
    """It has ended here, and its record has gone on: there is nothing left to do."""
    FORGET = "forget"
    """Another agent has it, and the program does not work on it."""
    INTERRUPT = "interrupt"
    """Another agent has it: interrupt the program, then forget the task."""


def decide_unfinished(*, is_lost: bool, has_result: bool, may_be_in_program: bool) -> UnfinishedDecision:
    """Go on with the task unless its record has gone on without this agent."""
    if not is_lost:
        return UnfinishedDecision.KEEP
    if has_result:
        return UnfinishedDecision.CLOSE
    return UnfinishedDecision.INTERRUPT if may_be_in_program else UnfinishedDecision.FORGET


class UnfinishedTask:
    """What one agent's host does about the task in its journal. The caller holds the pane."""

    def __init__(self, agent: HostedAgent) -> None:
        self._agent = agent

    @property
    def folder(self) -> AttemptFolder | None:
        """The folder of its attempt, if the pane was left with a task."""
        current = self._agent.presence.journal.current
        return self._agent.presence.attempt(current.task_id, current.attempt) if current else None

    @property
    def cut_off(self) -> CutOffAttempt | None:
        """Its attempt, if a new program is to go on with it."""
        cut_off = CutOffAttempt(self._agent, self.folder) if self.folder else None
        return cut_off if cut_off and cut_off.is_open else None

    def close_if_settled(self) -> None:
        """Finish what a worker began that died between keeping the settled record and writing the journal."""
        account = self.folder.kept_account if self.folder else None
        if account and TaskState(account["state"]) not in HELD:
            self._agent.presence.end(account)

    def settle_without_program(self) -> None:
        """Settle an attempt whose program has gone.

        A new program may go on with it, in the same conversation. Else it has failed, unless the program was ended on
        purpose: then nothing of the task is in a program any more.
        """
        folder, agent = self.folder, self._agent
        if folder is None or folder.result() or agent.kind.ending(folder):
            return
        if CutOffAttempt(agent, folder).note():
            return
        if folder.interrupted.exists():
            folder.begun.unlink(missing_ok=True)
        else:
            message = "agent crashed: its pane died while the task ran"
            folder.store(agent.results.failed(folder, FailureKind.AGENT_CRASHED, message))

    def drop_if_lost(self) -> None:
        """Drop the task if another agent has it now, or it has ended elsewhere."""
        folder = self.folder
        if folder is None:
            return
        lost = self._is_lost(folder)
        decision = decide_unfinished(
            is_lost=lost,
            has_result=folder.result() is not None,
            may_be_in_program=lost and self._may_be_in_program(folder),
        )
        if decision is UnfinishedDecision.KEEP:
            return
        log.warning("%s: drops task %s: another agent has it, or it is over", self._agent.kind.agent_id, folder.task_id)
        if decision is UnfinishedDecision.CLOSE:
            self.close(folder, self._agent.records.account(folder.task_id))
        else:
            self._forget(folder, interrupt=decision is UnfinishedDecision.INTERRUPT)

    def abandon(self, folder: AttemptFolder) -> None:
        """Interrupt the program if it works on this attempt, which gets no result here, and forget the task."""
        self._forget(folder, interrupt=not folder.result() and self._may_be_in_program(folder))

    def close(self, folder: AttemptFolder, account: Mapping[str, str]) -> None:
        """End the work on an attempt that has a result; its record is kept in case the broker forgets it."""
        folder.remember(account, None)
        self._agent.presence.end(account)

    def _forget(self, folder: AttemptFolder, *, interrupt: bool) -> None:
        kind, terminal = self._agent.kind, self._agent.terminal
        if interrupt:
            terminal.interrupt(lambda: kind.has_stopped(terminal.pane, folder))
        folder.forget_account()
        self._agent.presence.remember(current=None)

    def _is_lost(self, folder: AttemptFolder) -> bool:
        try:
            ownership = self._agent.records.ownership(folder.task_id)
        except BrokerAway:
            ownership = None
        return is_lost(folder.kept_account, ownership, self._agent.presence.info)

    def _may_be_in_program(self, folder: AttemptFolder) -> bool:
        kind, terminal = self._agent.kind, self._agent.terminal
        return folder.begun.exists() and not (terminal.is_alive and kind.has_stopped(terminal.pane, folder))

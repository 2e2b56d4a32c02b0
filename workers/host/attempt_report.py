"""What an attempt reports: to the task's record, to the fleet, and to the agent that gets the task next."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from torch_tasks.errors import BrokerAway, TorchError
from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.handover import Handoff
from torch_tasks.model.task import Fact, TaskSpec, TaskState, TaskStep
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.git.tree import branch_or_commit, uncommitted_changes
from torch_tasks.workers.host.hosted_agent import HostedAgent
from torch_tasks.workers.programs.kind import StateReading, login_hint

log = logging.getLogger(__name__)

#: How many characters of the screen and of the changes are noted for the next agent.
_SCREEN_LIMIT, _DIFF_LIMIT = 8000, 16000


class AttemptReport:
    """Keeps the record of one attempt's task up to date: on the broker, and on disk in case the broker forgets it."""

    def __init__(self, agent: HostedAgent, folder: AttemptFolder, message: str | None) -> None:
        self._agent = agent
        self._folder = folder
        self._message = message
        self._facts: list[Fact] = []
        #: What the agent does, as the task's record has it.
        self.shown: StateReading | None = None

    def move(
        self, state: TaskState, note: str | None = None, question: str | None = None, step: TaskStep | None = None
    ) -> Mapping[str, str]:
        """Move the task's record to this state; returns the record."""
        by = self._agent.presence.info
        return self._agent.records.move(self._folder.task_id, state, by=by, step=step, note=note, question=question)

    def keep(self, account: Mapping[str, str]) -> None:
        """Keep the task's record on disk."""
        self._folder.remember(account, self._message)

    def add(self, *facts: Fact) -> None:
        """Note something for the task's history; :meth:`write` writes it."""
        self._facts += facts

    def write(self) -> None:
        """Write what was added into the task's history; while the broker is away, a later call does."""
        account: Mapping[str, str] = {}
        with contextlib.suppress(BrokerAway):
            while self._facts:
                words, step = self._facts[0]
                account = self.move(_task_state(self.shown), note=words or None, step=step)
                self._facts.pop(0)
        if account:
            self.keep(account)

    def show(self, reading: StateReading) -> None:
        """Show the fleet what the agent does, if that has changed."""
        before, question = self.shown, reading.question
        if before and (before.state, before.question, before.hindrance) == (reading.state, question, reading.hindrance):
            return
        with contextlib.suppress(BrokerAway):
            if _task_state(before) is not _task_state(reading) or question or reading.hindrance:
                note = question.text if question else self._why_it_waits(reading)
                asked = question.model_dump_json() if question else ""
                self.keep(self.move(_task_state(reading), note=note, question=asked))
            self.shown = reading
            self._agent.presence.show(reading.state, task=self._folder.task_id, asks=reading.obstacle)

    def _why_it_waits(self, reading: StateReading) -> str | None:
        if reading.hindrance:
            return f"waits: {reading.obstacle}"
        return login_hint(self._agent.kind.agent_id) if reading.state is AgentState.LOGIN else None


def _task_state(reading: StateReading | None) -> TaskState:
    waits = reading is not None and reading.state in {AgentState.WAITING, AgentState.LOGIN}
    return TaskState.WAITING if waits else TaskState.RUNNING


class HandoffNotes:
    """Notes for the next agent, taken at intervals: what the pane shows, and what changed in the task's workdir."""

    def __init__(self, agent: HostedAgent) -> None:
        self._agent = agent
        self._interval = agent.settings.handoff_seconds
        self._next = time.monotonic() + self._interval
        self._last: Handoff | None = None

    def note_if_due(self, spec: TaskSpec) -> None:
        """Write them into the task's record if it is time and something is new."""
        if time.monotonic() >= self._next:
            self.note(spec)

    def note(self, spec: TaskSpec) -> None:
        """Write them into the task's record if something is new."""
        self._next = time.monotonic() + self._interval
        info = self._agent.presence.info
        workdir = Path(spec.workdir or info.workdir)
        try:
            handoff = Handoff(
                agent=info.agent_id,
                node=info.node,
                noted_at=now(),
                screen=self._agent.terminal.pane.screen()[-_SCREEN_LIMIT:],
                branch=branch_or_commit(workdir),
                diff=uncommitted_changes(workdir, _DIFF_LIMIT),
            )
            if self._last is None or handoff.model_copy(update={"noted_at": self._last.noted_at}) != self._last:
                self._agent.records.note_handoff(spec.id, handoff, info)
                self._last = handoff
        except TorchError as error:
            log.info("task %s: no notes were taken for the next agent: %s", spec.id, error)

"""The supervisor of one agent worker: it starts the worker, restarts it when it dies, and ends it."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil
from pydantic import Field

from torch_tasks.errors import BrokerUnreachable, IllegalTransition, StateFolderUnusable, Unreadable
from torch_tasks.machine import commands
from torch_tasks.machine.agent_folder import agent_worker_name, is_hosted, retire_order_in
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentSpec, RetireMode, RetireOrder
from torch_tasks.model.fields import Model
from torch_tasks.model.node import KEPT_TRANSITIONS, KeptAgent, KeptState
from torch_tasks.model.reader import read_model
from torch_tasks.settings import Settings
from torch_tasks.state_folder import CRASHES, JOURNAL
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.system.loops import EXPECTED, backoff
from torch_tasks.system.processes import Processes, Running, kill_each
from torch_tasks.system.tally import tally
from torch_tasks.system.warm_start import WarmParent
from torch_tasks.workers.folders import AgentJournal
from torch_tasks.workers.host.presence import LivenessFile

log = logging.getLogger(__name__)

#: How long an agent worker may take to stop.
_GRACE = 10.0
_LOOK_SECONDS = 0.2


class CrashCount(Model):
    """An agent worker's crashes in a row. It lies in the agent's folder, so that another node worker counts on."""

    in_a_row: int = Field(0, ge=0)
    tasks_ended: int = Field(0, ge=0)
    """How many tasks the agent had done when its worker crashed last."""

    @classmethod
    def read(cls, file: Path) -> CrashCount:
        """The count that was kept; none if it cannot be read."""
        with suppress(OSError, Unreadable):
            return read_model(cls, file.read_text(errors="replace"))
        return cls()


class SupervisorCallbacks(Protocol):
    """What a supervisor leaves to its node."""

    def why_not_start(self, kind: str) -> str:
        """Why no agent of this kind is started now; empty if nothing stands against it."""

    def worker_ended(self, agent_id: str, why: str) -> None:
        """An agent worker has died; ``why`` is the end of its log."""

    def finish_retirement(self, agent: AgentSpec, order: RetireOrder) -> bool:
        """End the agent, whose worker is gone, and remove it from the fleet; false if it must be tried again."""


class WorkerSupervisor(threading.Thread):
    """Keeps one agent worker alive: starts it, restarts it when it dies, and gives up after too many deaths in a row.

    With an order to retire in the agent's folder, the worker stays down once its task is over, and the agent ends.
    """

    def __init__(
        self,
        agent: AgentSpec,
        configuration: Settings,
        callbacks: SupervisorCallbacks,
        warm: WarmParent | None = None,
    ) -> None:
        super().__init__(name=f"supervisor {agent.id}", daemon=True)
        self.leaving = threading.Event()
        self.state = KeptState.RESTARTING
        self.reason = ""
        self.agent = agent
        self._callbacks = callbacks
        self._warm = warm
        self._settings = configuration
        self._processes = Processes(configuration.state.run)
        self._name = agent_worker_name(agent.id)
        self._folder = configuration.state.agent(agent.id)
        self._liveness = LivenessFile(self._folder)
        self._count_file = self._folder / CRASHES
        self._crashes = CrashCount.read(self._count_file)
        self._died_at: float | None = None
        """When the worker died, until its successor's first heartbeat."""

    @property
    def report(self) -> KeptAgent:
        """The agent's state here, for the node's entry in the registry."""
        agent, state = self.agent, KeptState.RETIRING if retire_order_in(self._folder) else self.state
        return KeptAgent(
            agent_id=agent.id, role=agent.role, kind=agent.kind, parent=agent.parent, state=state, reason=self.reason
        )

    def run(self) -> None:
        """Work until the node worker leaves, the agent is in quarantine, or it has retired; no error ends it."""
        while not self.leaving.is_set():
            try:
                if self._play_round():
                    return
            except Exception as error:  # without its supervisor, the agent would never be started again
                log.error(
                    "%s: its supervisor tries again: %s", self.agent.id, error, exc_info=not isinstance(error, EXPECTED)
                )
                self.state = KeptState.RESTARTING
                self.leaving.wait(self._settings.restart_backoff_seconds)
        self._processes.stop(self._name, _GRACE)

    def _play_round(self) -> bool:
        """Start the worker and wait until it has ended, or retire the agent; true if nothing is left to do."""
        if self._can_retire_now():
            return self._finish_retirement()
        if self._is_hosted_elsewhere():
            self.leaving.wait(_LOOK_SECONDS)
            return False
        started_at = time.monotonic()
        worker = self._processes.find(self._name)
        if worker is None and (why := self._callbacks.why_not_start(self.agent.kind)):
            self.reason = why
            self.leaving.wait(_LOOK_SECONDS)
            return False
        self.reason = ""
        worker = worker or self._start()
        self._enter(KeptState.RUNNING)
        code = self._wait(worker, started_at)
        if self.leaving.is_set():
            return False
        self._enter(KeptState.RESTARTING)
        if code == BrokerUnreachable.exit_code:  # no crash, however often it happens
            self.leaving.wait(self._settings.restart_backoff_seconds)
        elif not self._can_retire_now() and not self._callbacks.why_not_start(self.agent.kind):
            self._handle_crash(worker, time.monotonic() - started_at)
        return self.state is KeptState.QUARANTINED

    def _enter(self, state: KeptState) -> None:
        if state not in KEPT_TRANSITIONS[self.state]:
            raise IllegalTransition(f"the worker of {self.agent.id} cannot be {state}: it is {self.state}")
        self.state = state

    # ── retiring ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _can_retire_now(self) -> bool:
        """Whether the agent is to retire, and nothing is left for its worker to do."""
        order = retire_order_in(self._folder)
        if order is None or self._processes.find(self._name) or is_hosted(self._folder):
            return False
        journal = AgentJournal.read(self._folder / JOURNAL)
        return order.mode is RetireMode.NOW or not (journal and journal.current)

    def _is_hosted_elsewhere(self) -> bool:
        """Whether the agent is to retire, and a person started its worker by hand."""
        is_ordered = retire_order_in(self._folder) is not None
        return is_ordered and not self._processes.find(self._name) and is_hosted(self._folder)

    def _finish_retirement(self) -> bool:
        order = retire_order_in(self._folder)
        if order and not self._callbacks.finish_retirement(self.agent, order):
            self.leaving.wait(self._settings.restart_backoff_seconds)
            return False
        self._processes.stop(self._name, _GRACE)
        self.forget_crashes()
        return True

    # ── the worker ───────────────────────────────────────────────────────────────────────────────────────────────

    def _handle_crash(self, worker: Running, lived: float) -> None:
        """Count the crash; then pause before the next start, or put the agent in quarantine after too many in a row.

        A row ends with a task that the agent has done, or with a worker that lived for long. The pause counts from the
        start of the worker that died: one that worked for longer than that is followed at once.
        """
        settings = self._settings
        self._died_at = self._died_at or time.monotonic()
        crashes = self._count(lived)
        tally().count(metrics.WORKERS_CRASHED, role=self.agent.role, kind=self.agent.kind)
        last_words = worker.last_words()
        self._callbacks.worker_ended(self.agent.id, last_words)
        if retire_order_in(self._folder):
            return
        if crashes < settings.quarantine_crashes:
            first, longest = settings.restart_backoff_seconds, settings.restart_backoff_limit_seconds
            self.leaving.wait(max(backoff(crashes, first, longest) - lived, 0.0))
            return
        log.error(
            "%s: in quarantine after %d crashes in a row; the end of its log, %s:\n%s",
            self.agent.id,
            crashes,
            worker.log,
            last_words,
        )
        last = last_words.splitlines()[-1] if last_words else "its log is empty"
        self.reason = f"{crashes} crashes in a row: {last}"
        self._enter(KeptState.QUARANTINED)

    def _count(self, lived: float) -> int:
        """Note one more crash of a worker that lived for so long; returns how many there are in a row."""
        before, tasks_ended = self._crashes, self._tasks_ended()
        goes_on = tasks_ended <= before.tasks_ended and lived < self._settings.quarantine_healthy_seconds
        self._crashes = CrashCount(in_a_row=before.in_a_row + 1 if goes_on else 1, tasks_ended=tasks_ended)
        make_folder(self._folder)
        write_private(self._count_file, self._crashes.model_dump_json() + "\n")
        return self._crashes.in_a_row

    def _tasks_ended(self) -> int:
        """How many tasks the agent has done; as many as before, if its journal cannot be read."""
        with suppress(StateFolderUnusable):
            journal = AgentJournal.read(self._folder / JOURNAL)
            return journal.performance.ended if journal else 0
        return self._crashes.tasks_ended

    def forget_crashes(self) -> None:
        """Have the next start be the first one."""
        self._count_file.unlink(missing_ok=True)

    def _start(self) -> Running:
        running = self._processes.start(
            self._name,
            commands.runnable(commands.agent_worker(self.agent)),
            log=self._settings.state.logs / f"{self._name}.log",
            env=dict(os.environ),
            forker=self._warm,
        )
        log.info("%s: agent worker started, pid %d", self.agent.id, running.pid)
        return running

    def _wait(self, worker: Running, started_at: float) -> int | None:
        """Wait until the worker has ended or this node worker leaves; returns the worker's exit code if known."""
        while not self.leaving.is_set():
            process = worker.process()
            if process is None:
                log.warning("%s: agent worker %d has ended", self.agent.id, worker.pid)
                return None
            try:
                code: int | None = process.wait(timeout=1)
                if code is None and self._warm:
                    code = self._warm.exit_code(worker)
                log.warning("%s: agent worker %d has ended with exit code %s", self.agent.id, worker.pid, code)
                return code
            except psutil.TimeoutExpired:
                self._note_return()
                if self._is_hung(started_at):
                    log.error("%s: agent worker %d hangs, killing it", self.agent.id, worker.pid)
                    kill_each([process])
                order = retire_order_in(self._folder)
                if order and order.mode is RetireMode.NOW:
                    self._processes.stop(self._name, _GRACE)
        return None

    def _note_return(self) -> None:
        """Count how long the agent was without a worker, once the next one's heart beats."""
        beat = time.monotonic() - self._liveness.silence()
        if self._died_at is not None and beat > self._died_at:
            tally().observe(metrics.WORKER_BACK_SECONDS, beat - self._died_at, role=self.agent.role)
            self._died_at = None

    def _is_hung(self, started_at: float) -> bool:
        limit = self._settings.hung_seconds
        return time.monotonic() - started_at > limit and self._liveness.silence() > limit

"""One agent's life: open (start or adopt), execute, detach, close.

The pane outlives the worker. What the next worker must know is in the journal and in the run's folder, so this
process may die at any moment and the next one goes on from the files.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Container, Mapping
from pathlib import Path

import redis

from torch_tasks.errors import AgentUnavailable, BrokerUnreachable, StaleWriter, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import order_in
from torch_tasks.model.agent import AgentInfo, AgentSpec, AgentState, RetireMode
from torch_tasks.model.host import TaskDelivery, UsageLimited
from torch_tasks.model.limits import Resources
from torch_tasks.model.task import HELD, FailureKind, TaskResult, TaskSpec, TaskState
from torch_tasks.system.loops import Loop
from torch_tasks.transport import pause
from torch_tasks.workers.git.task_trees import TaskTrees
from torch_tasks.workers.host.accounts import reclaim, tell_accounts
from torch_tasks.workers.host.attempt import Attempt
from torch_tasks.workers.host.attempt_end import AttemptResults, is_lost
from torch_tasks.workers.host.holds_watcher import HoldsWatcher
from torch_tasks.workers.host.hosted_agent import HostedAgent, HostOrders, IdleTimer
from torch_tasks.workers.host.journal import AgentJournal, AttemptFolder, CurrentAttempt, prune_attempts
from torch_tasks.workers.host.message_carrier import MessageCarrier
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.quota import AccountQuota
from torch_tasks.workers.host.resource_guard import ResourceGuard
from torch_tasks.workers.host.screen_publisher import ScreenPublisher
from torch_tasks.workers.host.terminal import Bell, Terminal
from torch_tasks.workers.programs.kind import program_of
from torch_tasks.workers.tmux.server import require_tmux

log = logging.getLogger(__name__)

#: How often it is looked whether the answer to a message has been told, before a task hides it.
_HEARING = 0.1


class Host:
    """Hosts the one agent of this worker."""

    def __init__(self, spec: AgentSpec, fleet: Fleet) -> None:
        self._spec = spec
        self._fleet = fleet
        self._records = fleet.records
        self._settings = fleet.settings
        self.presence = AgentPresence(spec, fleet)
        self._kind = program_of(spec, self.presence.folder, Path(spec.workdir or Path.cwd()))
        self._results = AttemptResults(self.presence, self._kind, self._settings.answer_limit_bytes)
        self._quota = AccountQuota(self._kind, fleet)
        self.holds = HoldsWatcher(fleet, spec)
        self._trees = TaskTrees(fleet)
        self._working = threading.Lock()
        # In a thread of its own: tmux may take its time, and who is silent meanwhile would be taken for dead.
        self._looking_after = Loop(
            "look after",
            self._look_after_agent,
            pause=math.inf,
            until=lambda: self._orders.leaving,
            expected=(TorchError, OSError, redis.RedisError),
        )
        self._orders = HostOrders()
        self._idle = IdleTimer(spec, fleet)

    @property
    def info(self) -> AgentInfo:
        """The agent's entry in the registry, with its incarnation."""
        return self.presence.info

    @property
    def leaving(self) -> bool:
        """This worker is about to stop."""
        return self._orders.leaving

    @property
    def retiring(self) -> bool:
        """The agent takes no task that it has not begun."""
        return self._orders.retiring

    @property
    def busy(self) -> bool:
        """Something is being done with the pane at this moment."""
        return self._working.locked()

    @property
    def unfinished(self) -> CurrentAttempt | None:
        """The task that the pane was left with."""
        return self.presence.journal.current

    @property
    def unfinished_task(self) -> str | None:
        """Its id: it comes before any other task."""
        current = self.unfinished
        return current.task_id if current else None

    @property
    def hold_reason(self) -> str | None:
        """Why the agent begins nothing now, if somebody paused or stopped it."""
        return self.holds.reason

    # ── open: start or adopt ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Become the agent's one host, with its program ready in its pane; or refuse with a named error."""
        require_tmux()
        workdir = Path(self._spec.workdir or Path.cwd())
        if not workdir.is_dir():
            raise AgentUnavailable(
                f"agent {self._spec.id} cannot start: its workdir {workdir} is not a folder on this node"
            )
        self.presence.take(workdir)
        self._note_end()
        prune_attempts(self.presence.folder / "runs", self._settings.result_days)
        self._bell = Bell(self.presence.folder / "bell", self._on_bell)
        self._terminal = Terminal(self.presence.folder, self._kind, self._bell, self._settings)
        self._guard = ResourceGuard(self._spec.id, self._terminal, self._terminal.limits)
        self._agent = HostedAgent(
            kind=self._kind,
            terminal=self._terminal,
            bell=self._bell,
            presence=self.presence,
            records=self._records,
            settings=self._settings,
            results=self._results,
            orders=self._orders,
            holds=self.holds,
            quota=self._quota,
            guard=self._guard,
            trees=self._trees,
            deliver_during_task=lambda attempt: self._messages.deliver_during_task(attempt),
        )
        self._screen = ScreenPublisher(self._spec.id, self._terminal, self._fleet)
        self._messages = MessageCarrier(self._agent, self._fleet, self._working)
        journal = self.presence.journal
        try:
            with self._working:
                if self._adopt(journal):
                    log.info("%s: pane %s adopted", self._spec.id, journal.pane)
                    self._drop_lost_task()
                    self.presence.show(AgentState.WORKING if self.unfinished else self._rest)
                else:
                    self._start()
        except TorchError:
            self.presence.leave()
            raise
        self.holds.begin(self._on_hold_change, unfinished=lambda: self.unfinished is not None)
        pause.while_so(lambda: self._terminal.wants_login and not self.unfinished)
        self._looking_after.start()
        self._messages.start()
        self._guard.start()

    def _note_end(self) -> None:
        """A former worker may have died after it noted how a try ended, and before it noted that it was over."""
        if self.unfinished:
            kept = self._run(self.unfinished.task_id, self.unfinished.attempt).recall()
            if kept and TaskState(kept[0]["state"]) not in HELD:
                self.presence.end(kept[0])

    def _adopt(self, journal: AgentJournal) -> bool:
        if journal.pane is None or journal.kind != self._spec.kind:
            return False
        return self._terminal.adopt(journal.pane, journal.session, Path(journal.folder or self.info.workdir))

    def _start(self) -> None:
        self._fail_task_of_dead_program()
        self._agent.start(Path(self.info.workdir))
        self.presence.show(self._rest)

    @property
    def _rest(self) -> AgentState:
        """How the agent is while it has nothing to do."""
        if self._terminal.wants_login:
            return AgentState.LOGIN
        return AgentState.LIMITED if pause.left else AgentState.READY

    def _fail_task_of_dead_program(self) -> None:
        """A new program knows nothing of the task that the last one died with: that try has failed, and is told so."""
        if not self.unfinished:
            return
        run = self._run(self.unfinished.task_id, self.unfinished.attempt)
        if not run.result() and not self._kind.ending(run):
            run.store(
                self._results.failed(run, FailureKind.AGENT_CRASHED, "agent crashed: its pane died while the task ran")
            )

    def beat(self) -> int | None:
        """Say that the agent lives; returns how many queues are demanded, if the broker answers."""
        return self.presence.beat()

    def resources(self) -> Resources:
        """What the agent's terminal uses of this machine."""
        return self._guard.resources()

    def publish_screen(self) -> None:
        """Somebody watches the agent's screen from elsewhere, for a while from now."""
        self._screen.publish_for_a_while()

    def look_at_task(self) -> None:
        """Something was heard of the running task: whoever watches it looks at once."""
        self._bell.ring()

    def look_after_agent(self) -> None:
        """A while has passed."""
        self._looking_after.wake()

    def _on_bell(self) -> None:
        """The bell rang."""
        self._messages.look()
        self._looking_after.wake()

    def _look_after_agent(self) -> None:
        """See what holds the agent, and if it is idle, that it lives and works on nothing that is somebody else's."""
        self.holds.look()
        if self._working.acquire(blocking=False):
            try:
                self._revive()
            finally:
                self._working.release()

    def _on_hold_change(self) -> None:
        """The agent was paused, resumed, stopped or started: whoever works in its pane looks at once."""
        self._bell.ring()
        self._messages.look()
        threading.Thread(target=self._halt, name="halt", daemon=True).start()

    def _halt(self) -> None:
        """Tell the fleet, and interrupt what the program does beside tasks; a task's own thread lets go of that."""
        stop, halt = self.holds.stop, self.holds.interruption
        with self._working:
            if halt and not self._orders.leaving and not self.unfinished and self._terminal.alive:
                self._terminal.halt()
            self.presence.tell(stopped=stop)

    def _revive(self) -> None:
        if self.unfinished and not self._run(self.unfinished.task_id, self.unfinished.attempt).result():
            self._drop_lost_task()
        if self._terminal.wants_login and self._terminal.alive:
            self._terminal.settle()
        at_rest = self.info.state in (AgentState.READY, AgentState.LIMITED, AgentState.LOGIN)
        has_changed = at_rest and self.info.state is not self._rest
        if not self.unfinished and (has_changed or not self._terminal.alive):
            self._recover()
        if not self.hold_reason and self._idle.is_over(self.info, self._terminal, has_messages=self._messages.has_work):
            self._idle.order(self.presence.folder)

    def _drop_lost_task(self) -> None:
        """Interrupt the task that the pane was left with if another agent has it by now, or it has ended."""
        if self._orders.leaving or not self.unfinished:
            return
        run = self._run(self.unfinished.task_id, self.unfinished.attempt)
        try:
            ownership = self._records.ownership(run.task_id)
        except (redis.RedisError, BrokerUnreachable):
            ownership = None
        if not is_lost(run.kept_account, ownership, self.info):
            return
        log.warning("%s: task %s is somebody else's by now", self._spec.id, run.task_id)
        if run.result():
            self._close(run, self._records.account(run.task_id))
        else:
            self._abandon(run)

    def _abandon(self, run: AttemptFolder) -> None:
        """Have the pane let go of a try whose result nobody wants."""
        if run.begun.exists() and not run.result() and not self._has_let_go(run):
            self._terminal.interrupt(lambda: self._kind.has_let_go(self._terminal.pane, run))
        run.disown()
        self.presence.remember(current=None)

    def _has_let_go(self, run: AttemptFolder) -> bool:
        return self._terminal.alive and self._kind.has_let_go(self._terminal.pane, run)

    def _close(self, run: AttemptFolder, account: Mapping[str, str]) -> None:
        """Nothing more is to be done for a try that has ended; its account is kept, should the broker forget it."""
        run.remember(account, None)
        self.presence.end(account)

    def _recover(self) -> None:
        """Have the agent ready for the next task, if its program can be started at all."""
        if self._orders.leaving:
            return
        if self._terminal.alive:
            self.presence.show(self._rest)
            return
        try:
            self._start()
        except TorchError as error:
            log.error("%s", error)

    def resume(self) -> None:
        """Tell a broker that forgot what the agent knows, and have the task come that its pane was left with."""
        if self._fleet.known_broker() != self.presence.journal.broker:
            self.tell_accounts()
        if self.unfinished:
            reclaim(self.presence.folder, self._spec.id, self.unfinished, self._fleet)

    def tell_accounts(self) -> None:
        """Put back what the broker does not know any more of the agent's tasks."""
        tell_accounts(self.presence.folder, self._fleet)
        self.presence.remember(broker=self._fleet.known_broker())

    # ── execute ──────────────────────────────────────────────────────────────────────────────────────────────────

    def execute(self, spec: TaskSpec, attempt: int, delivery: TaskDelivery | None) -> TaskResult:
        """Have the agent do the task and return how it ended.

        Idempotent by task and attempt: what has ended is told again, what runs in the pane is watched to its end.
        """
        run = self._run(spec.id, attempt)
        with self._working:
            result = run.result()
            if result is None:
                self.presence.show(self.info.state, task=spec.id)  # from now on it is not free
                try:
                    result = self._work(spec, run, delivery)
                    self._quota.note(result)
                except AgentUnavailable as error:
                    if self.unfinished_task == spec.id:
                        self._terminal.end()  # whatever of it is in the pane must not go on beside the next try
                    result = self._results.failed(run, FailureKind.AGENT_UNAVAILABLE, str(error))
                except UsageLimited as limited:
                    self._quota.used_up(limited)
                    raise
                except StaleWriter:
                    self._abandon(run)
                    raise
                run.store(result)
            self._orders.cancelled = None
        return result

    def settle(self, task_id: str, account: Mapping[str, str]) -> None:
        """The record says what became of this task: nothing more is to be done for it here."""
        with self._working:
            if self.unfinished and self.unfinished.task_id == task_id:
                run = self._run(task_id, self.unfinished.attempt)
                if run.result():
                    self._trees.end(run, account, self.info)
                    self._close(run, account)
                else:
                    self._abandon(run)
            self._recover()
        self._idle.restart()
        self.retire()

    def drop_lost_task(self) -> None:
        """Drop the task that the pane was left with if its record has gone on without it."""
        with self._working:
            self._drop_lost_task()

    def _run(self, task_id: str, attempt: int) -> AttemptFolder:
        return AttemptFolder(self.presence.folder / "runs", task_id, attempt)

    def _work(self, spec: TaskSpec, run: AttemptFolder, delivery: TaskDelivery | None) -> TaskResult:
        attempt = Attempt(self._agent, spec, run, delivery)
        current = self.unfinished
        if current and (current.task_id, current.attempt) == (spec.id, run.attempt) and run.begun.exists():
            log.info("%s: task %s is in the pane already, watching it", self._spec.id, spec.id)
            attempt.resume()
            return attempt.watch()
        if refusal := attempt.refusal():
            return refusal
        self._quota.require()
        if not self._terminal.alive:
            self._start()
        self._messages.deliver_before_task()
        if refusal := attempt.await_free_pane():
            return refusal
        while not self._messages.last_is_answered():
            self._bell.wait(_HEARING)
            if refusal := attempt.await_free_pane():
                return refusal
        return attempt.begin() or attempt.watch()

    # ── cancel, retire, detach, close ──────────────────────────────────────────────────────────────────────────────

    def answer(self, task_id: str, reply: str) -> bool:
        """Have the agent get the answer it waits for; false if it does not work on this task."""
        if self.unfinished_task != task_id:
            return False
        self._orders.answers.append((task_id, reply))
        self._bell.ring()
        return True

    def cancel(self, task_ids: Container[str]) -> None:
        """End the task in the pane, or the one that waits to get into it, if it is one of these."""
        held = self.unfinished_task or self.info.current_task  # it may end at this moment
        if held and held in task_ids:
            self._orders.cancelled = held
            self._bell.ring()
            with contextlib.suppress(redis.RedisError, BrokerUnreachable):
                # Should this worker die before the agent has let go, the next one must know.
                self._records.request_cancel(held)

    def retire(self) -> None:
        """Heed an order to retire: take no new tasks, stop this worker once none is left; its node does the rest."""
        order = order_in(self.presence.folder)
        if order is None or self._orders.leaving:
            return
        if not self._orders.retiring:
            log.info("%s: retires", self._spec.id)
            self._orders.retiring = True
            self.presence.retire()
        if order.mode is RetireMode.NOW or not (self.unfinished or self.busy):
            os.kill(os.getpid(), signal.SIGTERM)

    def detach(self) -> None:
        """Let go of a running task without touching the pane. Safe to call from a signal handler."""
        self._orders.leaving = True
        self._bell.ring()
        self._messages.look()

    def close(self) -> None:
        """Leave the fleet; the pane stays for the next worker."""
        self._orders.leaving = True
        self._messages.look()
        with self._working:
            self._terminal.detach()
        self.presence.leave()
        self._bell.close()

"""One agent's life: open (start or adopt), execute, detach, close.

The pane outlives the worker, which may die at any moment: the next one goes on from the journal and the attempt's
folder.
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

from torch_tasks.errors import AgentUnavailable, BrokerAway, StaleWriter, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import retire_order_in
from torch_tasks.model.agent import AgentInfo, AgentSpec, AgentState, RetireMode
from torch_tasks.model.host import AgentHeld, AgentHost, Detached, TaskDelivery, UsageLimited
from torch_tasks.model.limits import Resources
from torch_tasks.model.task import FailureKind, TaskResult, TaskSpec
from torch_tasks.system.loops import Loop, in_background
from torch_tasks.transport.claiming import IntakePause
from torch_tasks.workers.folders import AttemptFolder, prune_attempts
from torch_tasks.workers.git.task_trees import TaskTrees
from torch_tasks.workers.host.attempt import Attempt
from torch_tasks.workers.host.attempt_end import AttemptResults
from torch_tasks.workers.host.diff_publisher import DiffPublisher
from torch_tasks.workers.host.holds_watcher import HoldsWatcher
from torch_tasks.workers.host.hosted_agent import HostedAgent, TaskOrders
from torch_tasks.workers.host.lifecycle import HostPhase, IdleTimer, Lifecycle
from torch_tasks.workers.host.message_carrier import MessageCarrier
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.put_back import reclaim, reconcile_agent
from torch_tasks.workers.host.quota import AccountQuota
from torch_tasks.workers.host.resource_guard import ResourceGuard
from torch_tasks.workers.host.screen_publisher import ScreenPublisher
from torch_tasks.workers.host.takeover import PaneTakeover
from torch_tasks.workers.host.terminal import Bell, Terminal, check_lineage
from torch_tasks.workers.host.unfinished_task import UnfinishedTask
from torch_tasks.workers.programs.kind import program_of
from torch_tasks.workers.tmux.server import require_tmux

log = logging.getLogger(__name__)

#: How long an answer waits for the task or message that works in the pane.
_PANE_SECONDS = 2.0
#: How often the host checks whether the program has answered its last message, which a task's prompt would hide.
_ANSWER_SECONDS = 0.1
#: How often a pane is looked at that something keeps from its next task.
_HINDERED_SECONDS = 1.0
_AT_REST = (AgentState.READY, AgentState.LIMITED)


class Host(AgentHost):
    """Hosts the one agent of this worker."""

    def __init__(self, spec: AgentSpec, fleet: Fleet, intake: IntakePause) -> None:
        self._spec = spec
        self._fleet = fleet
        self._intake = intake
        self._life = Lifecycle()
        self._presence = AgentPresence(spec, fleet)
        self._kind = program_of(spec, self._presence.folder, Path(spec.workdir or Path.cwd()))
        self._idle = IdleTimer(spec, fleet)
        #: Held by the thread that puts something into the pane.
        self._pane_lock = threading.Lock()
        # In a thread of its own: tmux may be slow, and an agent without a heartbeat would be taken for dead.
        self._caring = Loop("look after", self._look_after_agent, pause=math.inf, until=lambda: self.is_leaving)
        self.holds = HoldsWatcher(fleet, intake, spec)

    @property
    def info(self) -> AgentInfo:
        return self._presence.info

    @property
    def is_leaving(self) -> bool:
        return self._life.is_leaving

    @property
    def is_retiring(self) -> bool:
        return self._life.is_retiring

    @property
    def is_busy(self) -> bool:
        """A thread works in the pane at this moment."""
        return self._pane_lock.locked()

    @property
    def unfinished_task(self) -> str | None:
        current = self._presence.journal.current
        return current.task_id if current else None

    @property
    def hold_reason(self) -> str | None:
        return self.holds.reason

    # ── open: start or adopt ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Become the agent's one host, with its program ready in its pane; or refuse with a named error."""
        require_tmux()
        workdir = Path(self._spec.workdir or Path.cwd())
        if not workdir.is_dir():
            reason = f"its workdir {workdir} is not a folder on this node"
            raise AgentUnavailable(f"agent {self._spec.id} cannot start: {reason}")
        self._presence.take(workdir)
        self._assemble()
        check_lineage(self._fleet.settings, self._spec.id).end(grace=0)  # a former worker may have died beside one
        self._unfinished.close_if_settled()
        prune_attempts(self._presence.attempts, self._fleet.settings.result_days)
        try:
            self._start_or_adopt_with_heartbeats()
        except TorchError:
            self._presence.leave()
            raise
        self._life.move_to(HostPhase.SERVING)
        self.holds.begin(self._on_hold_change, unfinished=lambda: self.unfinished_task is not None)
        self._intake.pause_while(lambda: self._is_a_persons and not self.unfinished_task)
        self._caring.start()
        self._messages.start()
        self._agent.guard.start()

    def _start_or_adopt_with_heartbeats(self) -> None:
        """The worker's own loop, which sends them afterwards, begins only when the program has started."""
        pause = self._fleet.settings.heartbeat_seconds
        beating = Loop("heartbeat", self._presence.beat_quietly, pause=pause, longest_retry_seconds=pause)
        beating.start()
        try:
            with self._pane_lock:
                self._start_or_adopt()
        finally:
            beating.stop()
            beating.join()

    def _assemble(self) -> None:
        kind, presence, fleet = self._kind, self._presence, self._fleet
        bell = Bell(presence.folder / "bell", self._on_bell)
        self._terminal = Terminal(presence.folder, kind, bell, fleet.settings)
        self._agent = HostedAgent(
            kind=kind,
            terminal=self._terminal,
            bell=bell,
            presence=presence,
            records=fleet.records,
            settings=fleet.settings,
            results=AttemptResults(presence, kind, fleet.settings.answer_limit_bytes),
            life=self._life,
            orders=TaskOrders(),
            holds=self.holds,
            intake=self._intake,
            quota=AccountQuota(kind, fleet, self._intake),
            guard=ResourceGuard(self._spec.id, self._terminal),
            trees=TaskTrees(fleet),
            has_messages=lambda: self._messages.has_work,
            deliver_during_task=lambda folder: self._messages.deliver_during_task(folder),
        )
        self._unfinished = UnfinishedTask(self._agent)
        self.screen = ScreenPublisher(kind, self._terminal, fleet)
        self.takeover = PaneTakeover(self._terminal, presence, self.screen, self._on_bell)
        self.diffs = DiffPublisher(presence.attempts, fleet)
        self._messages = MessageCarrier(self._agent, self._fleet, self._pane_lock)

    def _start_or_adopt(self) -> None:
        if not self._agent.adopt():
            self._start()
            return
        log.info("%s: pane %s adopted", self._spec.id, self._presence.journal.pane)
        self._unfinished.drop_if_lost()
        if self.unfinished_task:
            self._presence.show(AgentState.WORKING)
        else:
            self._show_rest()

    def _start(self) -> None:
        """Start the program: where the task is that it is to go on with, else at home."""
        self._unfinished.settle_without_program()
        cut_off = self._unfinished.cut_off
        self._agent.start(cut_off.place if cut_off else Path(self.info.workdir))
        if cut_off:
            self._presence.show(AgentState.WORKING)
        else:
            self._show_rest()

    @property
    def _is_a_persons(self) -> bool:
        """Whether a person has to act in the pane, or has taken it over: it gets no task meanwhile."""
        return self._terminal.held_up is not None or bool(self._terminal.keyboard.person)

    def _show_rest(self) -> None:
        state, asks = self._rest
        self._presence.show(state, asks=asks)

    @property
    def _rest(self) -> tuple[AgentState, str]:
        """The agent's state while it has nothing to do, and what it asks of a person."""
        if held_up := self._terminal.held_up:
            return held_up.state, held_up.asks
        return AgentState.LIMITED if self._intake.seconds_left else AgentState.READY, ""

    def resume(self) -> None:
        """Put back what the broker forgot, and queue the task that the pane was left with."""
        reconcile_agent(self._presence.folder, self._fleet)
        if current := self._presence.journal.current:
            reclaim(self._presence.folder, self._spec.id, current, self._fleet)

    def put_back(self) -> None:
        """Put what the agent did back into a broker that was restarted."""
        reconcile_agent(self._presence.folder, self._fleet, always=True)

    # ── look after the agent ─────────────────────────────────────────────────────────────────────────────────────

    def beat(self) -> int | None:
        """Send the agent's heartbeat; returns how many queues are demanded, if the broker answers."""
        return self._presence.beat()

    def look_after_agent(self) -> None:
        """Have the thread that looks after the agent check its program, and whether it is paused or stopped."""
        self._caring.wake()

    def look_at_task(self) -> None:
        """Have the thread that watches the running task look at its record at once."""
        self._agent.look_at_record()

    def _on_bell(self) -> None:
        self._messages.look()
        self._caring.wake()

    def _look_after_agent(self) -> float | None:
        """Returns after how many seconds to look again, if that is not known yet."""
        self.holds.look()
        self.takeover.show()
        self._agent.note_conversation()
        if not self._pane_lock.acquire(blocking=False):
            return None
        try:
            return self._look_after_idle_agent()
        finally:
            self._pane_lock.release()

    def _look_after_idle_agent(self) -> float | None:
        """Have the program ready for the next task, drop a lost task, and retire an idle temporary agent."""
        folder = self._unfinished.folder
        if folder and not folder.result():
            self._drop_if_lost()
        is_hindered = self._is_hindered()
        is_at_rest = self.info.asks or self.info.state in _AT_REST or self._terminal.held_up
        has_changed = is_at_rest and (self.info.state, self.info.asks) != self._rest
        if not self.unfinished_task and (has_changed or not self._terminal.is_alive):
            self._recover()
        if not self.hold_reason and self._idle.is_over(self.info, self._terminal, has_messages=self._messages.has_work):
            self._idle.order_retirement(self._presence.folder)
        return _HINDERED_SECONDS if is_hindered else None

    def _is_hindered(self) -> bool:
        """Whether something keeps the program, which has no task, from taking one."""
        if self.unfinished_task or not self._kind.is_conversational or not self._terminal.is_alive:
            return False
        if not self._kind.has_started:
            return not self._terminal.settle() or self._terminal.held_up is not None
        return self._terminal.look_at_rest(has_messages=self._messages.has_work)

    def _recover(self) -> None:
        """Have the agent ready for the next task, if its program can be started."""
        if self.is_leaving:
            return
        if self._terminal.is_alive:
            self._show_rest()
            return
        try:
            self._start()
        except Detached:
            return  # the next worker does it
        except TorchError as error:
            log.error("%s", error)

    def _on_hold_change(self) -> None:
        """The agent was paused, resumed, stopped or started: have the threads that work in its pane look at once."""
        self._agent.bell.ring()
        self._messages.look()
        in_background("obey hold", self._obey_hold, until=lambda: self.is_leaving)

    def _obey_hold(self) -> None:
        """Show it to the fleet, and interrupt what the program does beside tasks; a task's own thread gives it back."""
        stop, interruption = self.holds.stop, self.holds.interruption
        with self._pane_lock:
            if interruption and not self.is_leaving and not self.unfinished_task and self._terminal.is_alive:
                self._terminal.interrupt_other_work()
            self._presence.publish(stopped=stop)

    # ── execute ──────────────────────────────────────────────────────────────────────────────────────────────────

    def execute(self, spec: TaskSpec, attempt: int, delivery: TaskDelivery | None) -> TaskResult:
        """Idempotent: an attempt that has ended is reported again, one that is in the pane is watched to its end."""
        folder = self._presence.attempt(spec.id, attempt)
        with self._pane_lock:
            result = folder.result()
            if result is None:
                self._presence.note_task(spec.id)
                result = self._attempt(spec, folder, delivery)
                folder.store(result)
            self._agent.orders.cancelled = None
        return result

    def _attempt(self, spec: TaskSpec, folder: AttemptFolder, delivery: TaskDelivery | None) -> TaskResult:
        try:
            result = self._work(Attempt(self._agent, spec, folder, delivery), folder)
            self._agent.quota.note(result)
        except AgentUnavailable as error:
            if self.unfinished_task == spec.id:
                self._terminal.end()  # this attempt must not go on in the pane beside the next one
            result = self._agent.results.failed(folder, FailureKind.AGENT_UNAVAILABLE, str(error))
        except UsageLimited as limited:
            self._agent.quota.used_up(limited)
            raise
        except StaleWriter:
            self._unfinished.abandon(folder)
            raise
        return result

    def _work(self, attempt: Attempt, folder: AttemptFolder) -> TaskResult:
        current = self._presence.journal.current
        if current and (current.task_id, current.attempt) == (folder.task_id, folder.attempt) and folder.begun.exists():
            log.info("%s: task %s is in the pane already, watching it", self._spec.id, folder.task_id)
            attempt.resume()
            return attempt.go_on() or attempt.watch()
        if reason := folder.interruption:
            raise AgentHeld(reason)
        if refusal := attempt.refusal():
            return refusal
        self._agent.quota.require()
        if not self._terminal.is_alive:
            self._start()
        self._messages.deliver_before_task()
        if refusal := attempt.await_free_pane():
            return refusal
        while not self._messages.last_is_answered():
            self._agent.bell.wait(_ANSWER_SECONDS)
            if refusal := attempt.await_free_pane():
                return refusal
        return attempt.begin() or attempt.watch()

    def settle(self, task_id: str, account: Mapping[str, str]) -> None:
        with self._pane_lock:
            folder = self._unfinished.folder
            if folder and folder.task_id == task_id:
                if folder.result():
                    self._agent.trees.end(folder, account, self.info)
                    self._unfinished.close(folder, account)
                else:
                    self._unfinished.abandon(folder)
            self._take_back()
            self._recover()
        self._messages.look()  # those that waited for the end of the task
        self._idle.restart()
        self.retire()

    def _take_back(self) -> None:
        """What a choice of the task changed for later ends with it, if need be with the program."""
        with contextlib.suppress(AgentUnavailable):
            pane = self._terminal.pane if self._agent.kind.is_conversational and self._terminal.is_alive else None
            if pane and self._agent.kind.is_free(pane) and not self._agent.kind.restore(pane):
                log.info("%s: a choice changed for later what its program asks, so a new one begins", self._spec.id)
                self._terminal.end()

    def drop_lost_task(self) -> None:
        with self._pane_lock:
            self._drop_if_lost()

    def _drop_if_lost(self) -> None:
        if not self.is_leaving:
            self._unfinished.drop_if_lost()

    # ── what others ask for ──────────────────────────────────────────────────────────────────────────────────────

    def answer(self, task_id: str, reply: str, ticket: str) -> bool:
        """Pass the agent the answer that it waits for in this task, or at its start; false if there is none.

        The same ticket gets the same word again, and the agent nothing.
        """
        given = self._agent.orders.tickets
        if ticket not in given:
            given[ticket] = self._answer(task_id, reply)
        return given[ticket]

    def _answer(self, task_id: str, reply: str) -> bool:
        if not task_id:
            return self._answer_at_start(reply)
        if self.unfinished_task != task_id:
            return False
        self._agent.orders.answers.append((task_id, reply))
        self._agent.bell.ring()
        return True

    def _answer_at_start(self, reply: str) -> bool:
        if not self._pane_lock.acquire(timeout=_PANE_SECONDS):
            return False
        try:
            held_up, pane = self._terminal.held_up, self._terminal.pane
            question = self._agent.kind.read(pane).question if held_up else None
            return question is not None and self._agent.kind.answer(pane, question, reply)
        except AgentUnavailable:
            return False
        finally:
            self._pane_lock.release()
            self._caring.wake()

    def cancel(self, task_ids: Container[str]) -> None:
        """End the task in the pane, or the one that waits to get into it, if it is one of these."""
        task_id = self.unfinished_task or self.info.current_task  # it may end at this moment
        if task_id and task_id in task_ids:
            self._agent.orders.cancelled = task_id
            self._agent.bell.ring()
            with contextlib.suppress(BrokerAway):
                # The next worker must know of it, should this one die before the agent has stopped.
                self._agent.records.request_cancel(task_id)

    def resources(self) -> Resources:
        return self._agent.guard.resources()

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def retire(self) -> None:
        """Obey an order to retire, if there is one: begin no other task, and stop this worker once none is left."""
        order = retire_order_in(self._presence.folder)
        if order is None or self.is_leaving:
            return
        if self._life.move_to(HostPhase.RETIRING):
            log.info("%s: retires, and takes no new tasks", self._spec.id)
            self._presence.publish(retiring=True)
        if order.mode is RetireMode.NOW or not (self.unfinished_task or self.is_busy):
            os.kill(os.getpid(), signal.SIGTERM)

    def detach(self) -> None:
        """Have every thread let go of the pane. Safe to call from a signal handler: it takes no lock."""
        self._life.move_to(HostPhase.LEAVING)
        self._agent.bell.ring()

    def close(self) -> None:
        """Leave the fleet; the pane stays for the next worker."""
        self._life.move_to(HostPhase.LEAVING)
        self._messages.look()
        with self._pane_lock:
            self._terminal.detach()
        self._presence.leave()
        self._agent.bell.close()
        self._life.move_to(HostPhase.CLOSED)

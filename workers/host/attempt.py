"""One attempt at a task: wait for a free pane, put the prompt in, watch the agent work, judge the evidence."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from pathlib import Path

import psutil

from torch_tasks.errors import AgentUnavailable, StaleWriter
from torch_tasks.model.agent import AgentState
from torch_tasks.model.durations import describe_duration, local_time
from torch_tasks.model.fields import now
from torch_tasks.model.handover import Handover
from torch_tasks.model.host import AgentHeld, Detached, HandedOver, TaskDelivery, UsageLimited
from torch_tasks.model.task import Evidence, Fact, Failure, FailureKind, TaskResult, TaskSpec, TaskState, TaskStep
from torch_tasks.store.task_outcomes import Ownership
from torch_tasks.system.files import usable, write_private
from torch_tasks.tasks.requests import ANSWERED, NOT_TAKEN
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.host.attempt_end import (
    STANDSTILL_LINES,
    AttemptEnd,
    AttemptFacts,
    StandstillDetector,
    TaskCheck,
    TimeLimit,
    is_decided,
    is_lost,
    what_ends,
)
from torch_tasks.workers.host.attempt_report import AttemptReport, HandoffNotes
from torch_tasks.workers.host.cut_off import CutOffAttempt
from torch_tasks.workers.host.holds_watcher import Interruption
from torch_tasks.workers.host.hosted_agent import HostedAgent
from torch_tasks.workers.host.pane_access import PaneAccess
from torch_tasks.workers.host.pane_environment import task_environment
from torch_tasks.workers.host.seen_record import SeenRecord
from torch_tasks.workers.host.terminal import check_lineage
from torch_tasks.workers.programs.kind import Continuation, ProgramEnding, StateReading

log = logging.getLogger(__name__)

#: How long an input line that was cleared may look used before the task is reported to wait for it.
_USED_SECONDS = 1.0
#: How long the agent's own command to hand its task over may take to return, and how often that is checked.
_RETURNING, _LOOK = 10.0, 0.1


class Attempt:
    """One attempt of one agent at one task; :func:`what_ends` decides what ends it."""

    def __init__(
        self, agent: HostedAgent, spec: TaskSpec, folder: AttemptFolder, delivery: TaskDelivery | None
    ) -> None:
        self._agent = agent
        self._terminal, self._kind, self._records = agent.terminal, agent.kind, agent.records
        self._spec = spec
        self._seen = SeenRecord(agent.records, agent.orders, spec.id)
        self._folder = folder
        self._delivery = delivery
        self._cut_off = CutOffAttempt(agent, folder)
        self._report = AttemptReport(agent, folder, delivery.message if delivery else None)
        self._access = PaneAccess(agent)
        self._notes = HandoffNotes(agent)
        self._standstill = StandstillDetector(agent.settings.stalled_seconds)
        self._asked_at: float | None = None
        self._interruption: Interruption | None = None

    # ── into the pane ────────────────────────────────────────────────────────────────────────────────────────────

    def refusal(self) -> TaskResult | None:
        """Why the task cannot begin, if so."""
        spec = self._spec
        self._require_no_hold()
        record = self._seen.look(is_last=True)
        if self._is_cancelled(record):
            return self._failed(FailureKind.CANCELLED, "cancelled before the agent began")
        if record and record.handover:
            raise HandedOver
        if spec.deadline and spec.deadline <= now():
            message = f"its deadline {spec.deadline.isoformat()} passed before an agent was free"
            return self._failed(FailureKind.DEADLINE, message)
        if spec.workdir and not Path(spec.workdir).is_dir():
            message = f"its workdir {spec.workdir} is not a folder on node {self._agent.presence.info.node}"
            return self._failed(FailureKind.REFUSED, message)
        if spec.workdir and (why := self._terminal.why_no_box(Path(spec.workdir))):
            return self._failed(FailureKind.REFUSED, why)
        return None

    def _require_no_hold(self) -> None:
        """Raise :class:`AgentHeld` if the agent may begin nothing; a mere pause lets a task in the pane go on."""
        begun = self._agent.presence.journal.current is not None
        interruption = self._agent.holds.interruption
        why = interruption.why if interruption else None if begun else self._agent.holds.reason
        if why and begun and self._terminal.is_alive:
            self._kind.discard_input(self._terminal.pane)
        if why:
            raise AgentHeld(why)

    def await_free_pane(self, *, is_begun: bool = False) -> TaskResult | None:
        """Wait until the pane shows an empty input line: a person who types there is not disturbed.

        The task's record says why it waits. Returns why the task cannot begin, if so. A task that has not begun and
        names no agent is left to others (:class:`AgentHeld`) if only a person can free the pane.
        """
        agent, pane, reported = self._agent, self._terminal.pane, ""
        if agent.presence.journal.current:  # a worker died while it put a task in: the input is Torch's own
            self._kind.discard_input(pane)
        self._kind.clear_input(pane)
        while not self._terminal.wait_for(self._access.is_free, _USED_SECONDS):
            if agent.life.is_leaving:
                raise Detached
            if not self._terminal.is_alive:
                raise AgentUnavailable(f"agent {self._kind.agent_id}: its pane died before the task began")
            if refusal := self.refusal():
                return refusal
            if (note := self._access.why_not()) != reported:
                reported = note
                agent.presence.show(AgentState.WAITING, task=self._spec.id, asks=note)
                self._report.move(TaskState.WAITING, note=note, question="")
            self._kind.clear_input(pane)
            if not is_begun:
                self._access.leave_to_others(self._spec, note)
        return None

    def begin(self) -> TaskResult | None:
        """Note that the task is in the pane, then put it there; or return why it cannot begin."""
        folder, agent = self._folder, self._agent
        with usable(folder.folder):
            self._terminal.rotate_transcript()
            folder.open()
            # Kept on disk only once the broker knows that it is the agent's: it comes before the agent's other tasks.
            self._report.keep(self._report.move(TaskState.RUNNING))
            asked = self._spec
            self._spec, news = agent.trees.begin(
                asked, folder, agent.presence.info, count_changes=self._kind.is_conversational
            )
            self._report.add(*map(Fact, news))
            if refusal := self._start_anew(has_own_tree=self._spec.workdir != asked.workdir):
                return refusal
            agent.guard.begin(folder)
            tag = self._delivery and self._delivery.tag
            agent.presence.remember(current=folder.begun_now(tag))
            self._kind.begin(self._terminal.pane, folder, self._spec, self._variables())
        return None

    def _start_anew(self, *, has_own_tree: bool) -> TaskResult | None:
        """Start a new program for the task if it must be fresh, or if the present one was started in another folder.

        A coding agent works where its program was started; some of them may write nowhere else. What a choice changed
        for later than its own task may only be gone with its program.
        """
        agent, spec = self._agent, self._spec
        home, here = agent.presence.info.workdir, agent.presence.journal.folder
        fresh = agent.kind.spec.fresh if spec.fresh is None else spec.fresh
        is_elsewhere = spec.workdir is not None and not self._terminal.may_work_in(Path(spec.workdir))
        moves = fresh or is_elsewhere or (has_own_tree and self._kind.is_conversational)
        folder = (spec.workdir if moves else here if spec.workdir and self._kind.box else None) or home
        is_restored = self._kind.restore(self._terminal.pane)
        if is_restored and not fresh and folder == here:
            return None
        agent.start(Path(folder), task=spec.id, anew=fresh)
        if refusal := self.await_free_pane(is_begun=True):
            return refusal
        why = "" if is_restored else ": a choice had changed for later what the last one asks"
        self._report.add(Fact(f"begun by a new program in {folder}{why}"))
        self._report.keep(self._report.move(TaskState.RUNNING))
        return None

    def resume(self) -> None:
        """The task is in the pane already: keep its record, in case the broker forgets it, and tell the fleet."""
        self._spec = self._agent.trees.resume(self._spec, self._folder)
        account = self._records.account(self._spec.id)
        self._report.keep(account)
        if account.get("state") == TaskState.WAITING:
            self._report.shown = StateReading(AgentState.WAITING, "task record")
        presence = self._agent.presence
        if presence.journal.current and self._delivery:
            presence.remember(current=presence.journal.current.model_copy(update={"delivery": self._delivery.tag}))
        presence.beat()  # nothing else changes now that would tell the fleet that it is watched again

    def go_on(self) -> TaskResult | None:
        """Have a new program go on with a task that the one before it was killed with, if that is so.

        Returns why it cannot.
        """
        if not self._cut_off.is_open or not self._terminal.is_alive:
            return None
        if refusal := self.await_free_pane(is_begun=True):
            return refusal
        continuation = self._cut_off.take_up()
        if continuation is Continuation.NOT_KEPT:
            return self._failed(FailureKind.AGENT_CRASHED, f"agent crashed: its program died, and {continuation}")
        if continuation is Continuation.RESUMED:
            self._agent.quota.count_call()
        self._report.add(Fact(f"its program was killed; the next one has its conversation: {continuation}"))
        self._report.write()
        return None

    def _variables(self) -> dict[str, str]:
        return task_environment(self._spec.id, self._agent.presence.info, self._folder)

    # ── at work ──────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self) -> TaskResult:
        """Help the program with the task until something ends the attempt."""
        self._agent.presence.show(AgentState.WORKING, task=self._spec.id)
        limit = self._limit()
        while True:
            is_alive = self._terminal.is_alive
            ending = self._look() if is_alive else self._kind.ending(self._folder)
            facts = self._facts(ending, limit, is_alive=is_alive)
            match what_ends(facts):
                case None:
                    self._agent.deliver_during_task(self._folder)
                    self._notes.note_if_due(self._spec)
                case AttemptEnd.ENDED:
                    if ending and (result := self._judge(ending)):
                        return result
                case AttemptEnd.DIED if self._cut_off.note_if_wanted(facts):
                    if result := self._come_back():
                        return result
                case end:
                    return self._end(end, limit, has_ended=ending is not None)
            self._rest(limit)

    def _come_back(self) -> TaskResult | None:
        """Start the program again, in its folder and with its conversation; or return why it cannot go on."""
        agent = self._agent
        if agent.life.is_leaving:
            raise Detached
        agent.start(self._cut_off.place, task=self._spec.id)
        if refusal := self.go_on():
            return refusal
        agent.presence.show(AgentState.WORKING, task=self._spec.id)
        return None

    def _facts(self, ending: ProgramEnding | None, limit: TimeLimit, *, is_alive: bool) -> AttemptFacts:
        agent, record = self._agent, self._seen.look(is_last=ending is not None)
        handover = record.handover if record else None
        self._interruption = agent.holds.interruption
        return AttemptFacts(
            has_ended=ending is not None,
            is_halted=self._interruption is not None,
            was_halted=self._folder.halted.exists(),
            is_handed_over=handover is not None,
            is_returning=handover is not None and self._is_returning(handover),
            is_alive=is_alive,
            is_lost=is_lost(self._folder.kept_account, record, agent.presence.info),
            is_leaving=agent.life.is_leaving,
            is_cancelled=self._is_cancelled(record),
            time_is_over=not limit.left,
            stands_still=is_alive and not ending and self._stands_still(),
        )

    def _is_cancelled(self, record: Ownership | None) -> bool:
        return self._agent.orders.cancelled == self._spec.id or (record is not None and record.cancel_requested)

    def _is_returning(self, handover: Handover) -> bool:
        """Whether the command that asked for the handover still runs, in the agent's own turn."""
        self._asked_at = self._asked_at or time.monotonic()
        late = time.monotonic() - self._asked_at > _RETURNING
        return handover.pid is not None and not late and psutil.pid_exists(handover.pid)

    def _stands_still(self) -> bool:
        if not (self._kind.is_conversational and self._standstill.is_due):
            return False
        shown = self._report.shown
        is_working = shown is not None and shown.state is AgentState.WORKING
        return self._standstill.stands_still(self._terminal.pane.screen(STANDSTILL_LINES) if is_working else None)

    def _look(self) -> ProgramEnding | None:
        """The task's ending if there is one; else help the program, and show the fleet what it does."""
        pane = self._terminal.pane
        with contextlib.suppress(AgentUnavailable):  # the pane died at this very moment: the next look sees it
            progress = self._kind.progress(pane, self._folder, self._spec)
            self._report.add(*progress.facts)
            self._report.write()
            if progress.ending:
                return progress.ending
            if progress.reading.state is AgentState.LIMITED:
                until = progress.reading.until
                when = f"; it ends {local_time(until)}" if until else ""
                raise UsageLimited(f"the usage limit of {self._kind.agent_id} is reached{when}", until)
            self._report.show(progress.reading)
            self._pass_answer_on(progress.reading)
            return None
        return self._kind.ending(self._folder)

    def _pass_answer_on(self, reading: StateReading) -> None:
        answers = self._agent.orders.answers
        while answers:
            task_id, reply = answers.popleft()
            if task_id != self._spec.id:
                continue
            is_taken = reading.question is not None and self._kind.answer(self._terminal.pane, reading.question, reply)
            note = f"{ANSWERED}{reply}" if is_taken else f"{NOT_TAKEN}the agent's program does not accept {reply!r}"
            self._report.add(Fact(note))
            if is_taken:
                self._report.shown = None  # its next question is new, even if it is the same
            self._report.write()

    def _limit(self) -> TimeLimit:
        current = self._agent.presence.journal.current
        return TimeLimit.of(self._spec, current.begun_at if current else now())

    def _rest(self, limit: TimeLimit) -> None:
        pause = _LOOK if self._asked_at else self._kind.pause
        self._agent.bell.wait(min(limit.left, pause))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self, end: AttemptEnd, limit: TimeLimit, *, has_ended: bool = False) -> TaskResult:
        """Return the result of the attempt, or raise the exception that says where the task goes."""
        match end:
            case AttemptEnd.HALTED:
                why, task = self._halt()
                if task != self._spec.id:
                    raise AgentHeld(why)
                failure = FailureKind.HELD_AGENTS, f"it is not put back, because it ordered this itself: {why}"
            case AttemptEnd.HANDED_OVER:
                raise self._hand_over(has_ended=has_ended)
            case AttemptEnd.LOST:
                raise StaleWriter(f"task {self._spec.id} has another owner now; {self._kind.agent_id} stops it")
            case AttemptEnd.LEAVING:
                raise Detached
            case AttemptEnd.DIED:
                died = FailureKind.AGENT_CRASHED, f"agent crashed: {self._terminal.how_it_ended()}"
                failure = self._agent.guard.why(self._folder) or died
                self._terminal.end()  # this attempt must not go on beside the next one
            case _:
                failure = self._failure(end, limit)
                is_final = end is not AttemptEnd.STANDS_STILL  # else another program begins the task anew
                self._terminal.interrupt(self._has_stopped, spares_draft=is_final)
        return self._failed(*failure)

    def _failure(self, end: AttemptEnd, limit: TimeLimit) -> tuple[FailureKind, str]:
        if end is AttemptEnd.CANCELLED:
            return FailureKind.CANCELLED, "cancelled while it ran"
        if end is AttemptEnd.TIME_IS_OVER:
            return limit.kind, limit.message
        seconds = self._agent.settings.stalled_seconds
        message = f"no progress: nothing new in its pane for {describe_duration(seconds)} (TORCH_STALLED_SECONDS)"
        return FailureKind.LOOPING, message

    def _halt(self) -> Interruption:
        """Interrupt the program. Note that first: the next worker must not take the interruption for an ending."""
        halted = self._folder.halted
        if not halted.exists():
            assert self._interruption
            write_private(halted, json.dumps(self._interruption))
        if self._terminal.is_alive and not self._has_stopped():
            self._terminal.interrupt(self._has_stopped)
        if self._terminal.is_alive:
            self._notes.note(self._spec)
        return Interruption(*json.loads(halted.read_bytes()))

    def _hand_over(self, *, has_ended: bool) -> HandedOver:
        """Write notes for the agent that gets the task, and interrupt the program."""
        if self._terminal.is_alive:
            self._notes.note(self._spec)
            if not has_ended:
                self._terminal.interrupt(self._has_stopped)
        return HandedOver()

    def _has_stopped(self) -> bool:
        return self._kind.has_stopped(self._terminal.pane, self._folder)

    def _judge(self, ending: ProgramEnding) -> TaskResult | None:
        """The result by the ending, and by the check if there is one; nothing if the agent goes on with the task."""
        shown, failure = (ending.evidence,), ending.failure
        if failure and is_decided(failure, self._spec.check):
            over = self._agent.guard.why(self._folder)
            kind, message = (over[0], f"{failure.message}; {over[1]}") if over else (failure.kind, failure.message)
            return self._failed(kind, message, shown)
        if not self._spec.check:
            return self._agent.results.succeeded(self._folder, shown)
        self._report.add(Fact("", TaskStep.CHECKING))
        self._report.write()
        verdict = self._check(self._spec.check)
        if isinstance(verdict, Failure):
            return self._failed(verdict.kind, verdict.message, shown)
        if verdict.passed:
            return self._agent.results.succeeded(self._folder, (*shown, verdict))
        if self._sent_back(verdict):
            return None
        message = f"check failed: {verdict.detail.splitlines()[0]}"
        return self._failed(FailureKind.CHECK_FAILED, message, (*shown, verdict))

    def _sent_back(self, verdict: Evidence) -> bool:
        """Send the check's output to the agent, which goes on; false if it cannot, or no round is left."""
        rounds = self._spec.check_rounds
        allowed = self._agent.settings.check_rounds if rounds is None else rounds
        done = len(list(self._folder.folder.glob("check.*")))
        if done >= allowed or not self._terminal.is_alive:
            return False
        text = f"The check of this task failed. Put it right.\n\n{verdict.detail}"
        if not self._kind.send_back(self._terminal.pane, self._folder, text):
            return False
        self._agent.quota.count_call()
        (self._folder.folder / "check").rename(self._folder.folder / f"check.{done + 1}")
        words = f"check failed, sent back to the agent ({done + 1} of {allowed}): {verdict.detail}"[:500]
        self._report.add(Fact(words, TaskStep.SENT_BACK))
        self._report.write()
        return True

    def _check(self, command: str) -> Evidence | Failure:
        """The check's verdict, or why there is none."""
        limit = self._limit().or_check(self._agent.settings.check_timeout_seconds)
        usual = self._terminal.environment(self._agent.presence.info)
        variables = {**usual, **self._variables(), "TORCH_ANSWER": str(self._folder.output)}
        workdir = self._spec.workdir or self._agent.presence.info.workdir
        check = TaskCheck(
            command,
            words=self._terminal.around_check(Path(workdir), ["bash", "-c", command]),
            workdir=workdir,
            variables=variables,
            log=self._folder.folder / "check",
            bell=self._agent.bell,
            lineage=check_lineage(self._agent.settings, self._kind.agent_id),
        )
        try:
            while check.exit_code is None:
                if end := what_ends(self._facts_beside_check(limit)):
                    if end is AttemptEnd.LEAVING:
                        raise Detached
                    kind, message = self._failure(end, limit)
                    return Failure(kind=kind, message=message)
                self._rest(limit)
            return check.evidence()
        finally:
            check.stop()

    def _facts_beside_check(self, limit: TimeLimit) -> AttemptFacts:
        """What may end a check; the program in the pane is done with the task."""
        is_leaving, is_cancelled = self._agent.life.is_leaving, self._is_cancelled(self._seen.look(is_last=False))
        return AttemptFacts(is_leaving=is_leaving, is_cancelled=is_cancelled, time_is_over=not limit.left)

    def _failed(self, kind: FailureKind, message: str, evidence: tuple[Evidence, ...] = ()) -> TaskResult:
        return self._agent.results.failed(self._folder, kind, message, evidence)

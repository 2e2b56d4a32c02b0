"""One agent's life: open (start or adopt), execute, detach, close.

The pane outlives the worker. What the next worker must know is in the journal and in the run's folder, so this
process may die at any moment and the next one goes on from the files.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Container, Mapping
from pathlib import Path

import redis

from torch_tasks.errors import AgentUnavailable, BrokerUnreachable, StaleWriter, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.hosting import Delivery, Detached
from torch_tasks.local.files import usable
from torch_tasks.models import (
    AgentInfo,
    AgentSpec,
    AgentState,
    Evidence,
    Failure,
    FailureKind,
    TaskResult,
    TaskSpec,
    TaskState,
    now,
)
from workers.accounts import reclaim, tell_accounts
from workers.agents.kind import Ending
from workers.agents.kinds import program_of
from workers.bell import Bell
from workers.check import Check
from workers.handoff import Handoffs
from workers.journal import CurrentRun, Journal
from workers.limit import Limit
from workers.outcome import Outcome
from workers.presence import Presence
from workers.runs import Run, prune
from workers.terminal import Terminal
from workers.tmux.server import require_tmux

log = logging.getLogger(__name__)

#: Nobody waits longer than this without looking again: a lost bell costs no more.
_LOOK_AGAIN = 5.0
#: How long an input line that was drawn anew may look used before a task is told to wait for it.
_TYPING = 1.0


class Host:
    """Hosts the one agent of this worker."""

    def __init__(self, spec: AgentSpec, fleet: Fleet) -> None:
        self._spec = spec
        self._fleet = fleet
        self._records = fleet.records
        self._settings = fleet.settings
        self.presence = Presence(spec, fleet)
        self._kind = program_of(spec, self.presence.folder, Path(spec.workdir or Path.cwd()))
        self._outcome = Outcome(self.presence, self._kind, self._settings.answer_limit_bytes)
        self._working = threading.Lock()
        self._leaving = False
        self._cancelled: str | None = None

    @property
    def info(self) -> AgentInfo:
        """The agent's entry in the registry, with its incarnation."""
        return self.presence.info

    @property
    def leaving(self) -> bool:
        """This worker is about to stop."""
        return self._leaving

    @property
    def unfinished(self) -> CurrentRun | None:
        """The task that the pane was left with."""
        return self.presence.journal.current

    @property
    def begun(self) -> str | None:
        """Its id: it comes before any other task."""
        return self.unfinished.task_id if self.unfinished else None

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
        prune(self.presence.folder / "runs", self._settings.result_days)
        self._bell = Bell(self.presence.folder / "bell", self._look)
        self._terminal = Terminal(self.presence.folder, self._kind, self._bell, self._settings)
        journal = self.presence.journal
        try:
            with self._working:
                if self._adopt(journal):
                    log.info("%s: pane %s adopted", self._spec.id, journal.pane)
                    self._let_go_of_what_is_not_ours()
                    self.presence.show(AgentState.WORKING if self.unfinished else AgentState.READY)
                else:
                    self._start()
        except TorchError:
            self.presence.leave()
            raise

    def _adopt(self, journal: Journal) -> bool:
        if journal.pane is None or journal.kind != self._spec.kind:
            return False
        return self._terminal.adopt(journal.pane, journal.session)

    def _start(self) -> None:
        self._mourn()
        self.presence.show(AgentState.STARTING)
        try:
            pane, session = self._terminal.start(self.info)
        except TorchError:
            self.presence.show(AgentState.EXITED)
            raise
        self.presence.remember(pane=pane, session=session, kind=self._spec.kind)
        self.presence.show(AgentState.READY)
        log.info("%s: started in pane %s", self._spec.id, pane)

    def _mourn(self) -> None:
        """A new program knows nothing of the task that the last one died with: that try has failed, and is told so."""
        if not self.unfinished:
            return
        run = self._run(self.unfinished.task_id, self.unfinished.attempt)
        if not run.result() and not self._kind.ending(run):
            run.store(
                self._outcome.failed(run, FailureKind.AGENT_CRASHED, "agent crashed: its pane died while the task ran")
            )

    def beat(self) -> int | None:
        """Say that the agent lives, having looked; returns how many queues are demanded, if the broker answers."""
        self._look()
        return self.presence.beat()

    def look_again(self) -> None:
        """Something was heard of the running task: whoever watches it looks at once."""
        self._bell.ring()

    def _look(self) -> None:
        """If the agent is idle, see that its program lives and works on nothing that is somebody else's by now.

        In a thread, for tmux may take its time, and who is silent meanwhile would be taken for dead.
        """
        if not self._working.locked() and not self._leaving:
            threading.Thread(target=self._revive, name="revive", daemon=True).start()

    def _revive(self) -> None:
        with self._working:
            if self.unfinished and not self._run(self.unfinished.task_id, self.unfinished.attempt).result():
                self._let_go_of_what_is_not_ours()
            if not self.unfinished and not self._terminal.alive:
                self._recover()

    def _let_go_of_what_is_not_ours(self) -> None:
        """Interrupt the task that the pane was left with if another agent has it by now, or it has ended."""
        if self._leaving or not self.unfinished:
            return
        run = self._run(self.unfinished.task_id, self.unfinished.attempt)
        if not self._is_lost(run):
            return
        log.warning("%s: task %s is somebody else's by now", self._spec.id, run.task_id)
        if run.result():
            self._close(run, self._records.account(run.task_id))
        else:
            self._abandon(run)

    def _abandon(self, run: Run) -> None:
        """Have the pane let go of a try whose result nobody wants."""
        if run.begun.exists() and not run.result() and not self._kind.ending(run):
            self._terminal.interrupt(lambda: self._kind.let_go(self._terminal.pane, run))
        run.disown()
        self.presence.remember(current=None)

    def _close(self, run: Run, account: Mapping[str, str]) -> None:
        """Nothing more is to be done for a try that has ended; its account is kept, should the broker forget it."""
        run.remember(account, None)
        self.presence.remember(current=None)

    def _is_lost(self, run: Run) -> bool:
        """The task's record has gone on without this try. While the broker is away, nobody can tell."""
        kept = run.recall()
        if kept is None:  # disowned already
            return True
        try:
            standing = self._records.standing(run.task_id)
        except (redis.RedisError, BrokerUnreachable):
            return False
        account = kept[0]
        ours = (account.get("agent"), account.get("node"))
        owner = standing.owner
        # What a broker says that came back with older data is no news.
        later = standing.revision > int(account["revision"])
        return later and (owner is None or owner[:2] != ours or owner[2] > self.info.incarnation)

    def _recover(self) -> None:
        """Have the agent ready for the next task, if its program can be started at all."""
        if self._leaving:
            return
        if self._terminal.alive:
            self.presence.show(AgentState.READY)
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

    def execute(self, spec: TaskSpec, attempt: int, delivery: Delivery | None) -> TaskResult:
        """Have the agent do the task and return how it ended.

        Idempotent by task and attempt: what has ended is told again, what runs in the pane is watched to its end.
        """
        run = self._run(spec.id, attempt)
        with self._working:
            result = run.result()
            if result is None:
                try:
                    result = self._work(spec, run, delivery)
                except AgentUnavailable as error:
                    if self.begun == spec.id:
                        self._terminal.end()  # whatever of it is in the pane must not go on beside the next try
                    result = self._outcome.failed(run, FailureKind.AGENT_UNAVAILABLE, str(error))
                except StaleWriter:
                    self._abandon(run)
                    raise
                run.store(result)
            self._cancelled = None
        return result

    def settle(self, task_id: str, account: Mapping[str, str]) -> None:
        """The record says what became of this task: nothing more is to be done for it here."""
        with self._working:
            if self.unfinished and self.unfinished.task_id == task_id:
                run = self._run(task_id, self.unfinished.attempt)
                if run.result():
                    self._close(run, account)
                else:
                    self._abandon(run)
            self._recover()

    def let_go(self) -> None:
        """Drop the task that the pane was left with if its record has gone on without it."""
        with self._working:
            self._let_go_of_what_is_not_ours()

    def _run(self, task_id: str, attempt: int) -> Run:
        return Run(self.presence.folder / "runs", task_id, attempt)

    def _work(self, spec: TaskSpec, run: Run, delivery: Delivery | None) -> TaskResult:
        current = self.unfinished
        in_pane = current and (current.task_id, current.attempt) == (spec.id, run.attempt) and run.begun.exists()
        if in_pane:
            log.info("%s: task %s is in the pane already, watching it", self._spec.id, spec.id)
            self._note(run, self._records.account(run.task_id), delivery)
        else:
            if refusal := self._refusal(spec) or self._prepare(spec):
                return self._outcome.failed(run, *refusal)
            self._begin(spec, run, delivery)
        self.presence.show(AgentState.WORKING, task=spec.id)
        return self._watch(spec, run)

    def _refusal(self, spec: TaskSpec) -> tuple[FailureKind, str] | None:
        """Why the task is not even begun, if so."""
        if self._wants_cancel(spec.id):
            return FailureKind.CANCELLED, "cancelled before the agent began"
        if spec.deadline and spec.deadline <= now():
            return FailureKind.DEADLINE, f"its deadline {spec.deadline.isoformat()} had passed when an agent was free"
        if spec.workdir and not Path(spec.workdir).is_dir():
            return FailureKind.REFUSED, f"its workdir {spec.workdir} is not a folder on node {self.info.node}"
        return None

    def _prepare(self, spec: TaskSpec) -> tuple[FailureKind, str] | None:
        """Have a free pane. A person who types in it is left alone; the task waits, says so, and may be refused yet."""
        if not self._terminal.alive:
            self._start()
        elif self.unfinished:  # a worker died while it put a task in: what stands there is ours
            self._kind.discard_input(self._terminal.pane)
        told = False
        self._kind.redraw_input(self._terminal.pane)
        while not self._terminal.wait_for(lambda: self._kind.free(self._terminal.pane), _TYPING):
            if self._leaving:
                raise Detached
            if not self._terminal.alive:
                raise AgentUnavailable(f"agent {self._spec.id}: its pane died before the task began")
            if refusal := self._refusal(spec):
                return refusal
            if not told:
                note = "somebody is typing in the agent's pane"
                self._records.move(spec.id, TaskState.WAITING, by=self.info, note=note)
                self.presence.show(AgentState.WAITING, task=spec.id)
                told = True
            self._kind.redraw_input(self._terminal.pane)
        return None

    def _begin(self, spec: TaskSpec, run: Run, delivery: Delivery | None) -> None:
        with usable(run.folder):
            self._terminal.rotate_transcript()
            run.open()
            # Only what is the agent's, and known to be, may hold up its other tasks.
            run.remember(self._records.move(spec.id, TaskState.RUNNING, by=self.info), delivery and delivery.message)
            tag = delivery and delivery.tag
            current = CurrentRun(task_id=spec.id, attempt=run.attempt, begun_at=now(), delivery=tag)
            self.presence.remember(current=current)
            self._kind.begin(self._terminal.pane, run, spec, self._variables(spec, run))

    def _note(self, run: Run, account: Mapping[str, str], delivery: Delivery | None) -> None:
        """Note on the disk what the broker knows of the task, should it forget."""
        run.remember(account, delivery.message if delivery else None)
        if self.unfinished and delivery:
            self.presence.remember(current=self.unfinished.model_copy(update={"delivery": delivery.tag}))

    def _variables(self, spec: TaskSpec, run: Run) -> dict[str, str]:
        return {
            "TORCH_TASK_ID": spec.id,
            "TORCH_INCARNATION": str(self.info.incarnation),
            "TORCH_CONTEXT": str(run.context),
        }

    def _watch(self, spec: TaskSpec, run: Run) -> TaskResult:
        """Wait for the program's ending, its death, or a reason to interrupt it."""
        limit = self._limit(spec)
        handoffs = Handoffs(self._records, self._settings.handoff_seconds)
        while True:
            if ending := self._kind.ending(run) or (
                self._terminal.alive and self._kind.progress(self._terminal.pane, run, spec).ending
            ):
                return self._judge(spec, run, ending)
            if not self._terminal.alive:
                self._terminal.end()  # nothing of this try goes on beside the next one
                message = "agent crashed: its pane or the program in it died"
                return self._outcome.failed(run, FailureKind.AGENT_CRASHED, message)
            if self._is_lost(run):
                raise StaleWriter(f"task {spec.id} is somebody else's by now; {self._spec.id} lets go of it")
            if reason := self._reason_to_stop(spec, limit):
                self._terminal.interrupt(lambda: self._kind.let_go(self._terminal.pane, run))
                return self._outcome.failed(run, *reason)
            handoffs.note(spec, self.info, self._terminal)
            self._rest(limit)

    def _judge(self, spec: TaskSpec, run: Run, ending: Ending) -> TaskResult:
        """What the program's ending, and the check if there is one, say about the task."""
        shown, failure = (ending.evidence,), ending.failure
        if failure and (not spec.check or failure.kind is not FailureKind.EXIT_CODE):
            return self._outcome.failed(run, failure.kind, failure.message, shown)
        if not spec.check:
            return self._outcome.succeeded(run, shown)
        verdict = self._check(spec, run)
        if isinstance(verdict, Failure):
            return self._outcome.failed(run, verdict.kind, verdict.message, shown)
        if verdict.passed:
            return self._outcome.succeeded(run, (*shown, verdict))
        message = f"check failed: {verdict.detail.splitlines()[0]}"
        return self._outcome.failed(run, FailureKind.CHECK_FAILED, message, (*shown, verdict))

    def _check(self, spec: TaskSpec, run: Run) -> Evidence | Failure:
        """The check's verdict, or why there is none."""
        assert spec.check
        limit = self._limit(spec).or_check(self._settings.check_timeout_seconds)
        variables = {**self._variables(spec, run), "TORCH_ANSWER": str(run.output)}
        workdir = spec.workdir or self.info.workdir
        check = Check(spec.check, workdir=workdir, variables=variables, log=run.folder / "check", bell=self._bell)
        try:
            while check.exit_code is None:
                if reason := self._reason_to_stop(spec, limit):
                    return Failure(kind=reason[0], message=reason[1])
                self._rest(limit)
            return check.evidence()
        finally:
            check.stop()

    def _limit(self, spec: TaskSpec) -> Limit:
        return Limit.of(spec, self.unfinished.begun_at if self.unfinished else now())

    def _reason_to_stop(self, spec: TaskSpec, limit: Limit) -> tuple[FailureKind, str] | None:
        if self._leaving:
            raise Detached
        if self._wants_cancel(spec.id):
            return FailureKind.CANCELLED, "cancelled while it ran"
        return None if limit.left else (limit.kind, limit.message)

    def _rest(self, limit: Limit) -> None:
        """Sleep until the bell, the limit, or the next look."""
        self._bell.wait(min(limit.left, _LOOK_AGAIN))

    def _wants_cancel(self, task_id: str) -> bool:
        if self._cancelled == task_id:
            return True
        try:
            return self._records.standing(task_id).cancel_requested
        except (redis.RedisError, BrokerUnreachable):  # the agent works on while the broker is away
            return False

    # ── cancel, detach, close ──────────────────────────────────────────────────────────────────────────────────────

    def cancel(self, task_ids: Container[str]) -> None:
        """Interrupt the task in the pane if it is one of these."""
        if self.unfinished and self.unfinished.task_id in task_ids:
            self._cancelled = self.unfinished.task_id
            self._bell.ring()
            with contextlib.suppress(redis.RedisError, BrokerUnreachable):
                # Should this worker die before the agent has let go, the next one must know.
                self._records.request_cancel(self._cancelled)

    def detach(self) -> None:
        """Let go of a running task without touching the pane. Safe to call from a signal handler."""
        self._leaving = True
        self._bell.ring()

    def close(self) -> None:
        """Leave the fleet; the pane stays for the next worker."""
        self._leaving = True
        with self._working:
            self._terminal.detach()
        self.presence.leave()
        self._bell.close()

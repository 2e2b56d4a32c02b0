"""Runs one delivery of ``torch.run`` at an agent worker, as :mod:`torch_tasks.tasks.dispatch` decides."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, NoReturn

from celery.exceptions import Ignore, Reject, Retry

from torch_tasks import keys
from torch_tasks.app import accepted, app
from torch_tasks.caller import CallerKind, acting_as, caller
from torch_tasks.errors import (
    BrokerForgot,
    IllegalTransition,
    KnownToOneServer,
    NotAllowed,
    StaleWriter,
    StateFolderUnusable,
    TaskFailed,
    TaskNotFound,
    TorchError,
)
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.asker import Asker
from torch_tasks.model.audit_record import AuditOutcome
from torch_tasks.model.host import AgentHeld, AgentHost, Detached, HandedOver, TaskDelivery, UsageLimited
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import (
    HELD,
    Failure,
    FailureKind,
    Permissions,
    Priority,
    TaskRecord,
    TaskResult,
    TaskSpec,
    TaskState,
    TaskStep,
)
from torch_tasks.model.traceparent import HEADER
from torch_tasks.security.audit import note_event
from torch_tasks.security.decision import note_denial, require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.settings import settings
from torch_tasks.store.task_fields import followers
from torch_tasks.store.task_outcomes import NewTask, Take
from torch_tasks.system.loops import backoff
from torch_tasks.tasks import dispatch, set_aside, task_counts
from torch_tasks.tasks.dispatch import Act, Arrival, Decision, Ending, EndOfTry, Reach
from torch_tasks.tasks.recorded_asker import asker_in
from torch_tasks.transport.deliveries import list_of_tag, queue_of
from torch_tasks.transport.envelope import ASKER_HEADER, LOSSES, as_header, fields_of, signed_seconds_ago, written

log = logging.getLogger(__name__)


class HeldMessage:
    """The message that this worker holds of a Celery task, and the ways to end it other than acknowledging it.

    Each command is one step on the broker, and nothing if the lease is lost. All but :meth:`bury` raise what keeps
    Celery from acknowledging the message.
    """

    def __init__(self, request: Any) -> None:
        self._id = request.id
        self._tag = str(request.properties["delivery_tag"])
        self._keeper = app.leases.keeper_of(self._tag)
        self._text = self._keeper.message(self._tag) if self._keeper else None
        self._fields: dict[str, Any] = fields_of(self._text) if self._text else {}
        self._asker = asker_in(request)

    @property
    def delivery(self) -> TaskDelivery | None:
        """What to restore should the broker forget it; None if the lease is lost."""
        return TaskDelivery(self._tag, self._text) if self._text else None

    @property
    def is_redelivered(self) -> bool:
        """An earlier worker was lost with it."""
        return bool(self._fields.get(LOSSES))

    @property
    def is_older_than_records(self) -> bool:
        """It was signed so long ago that the record of what it asks for may be gone because that has ended."""
        return signed_seconds_ago(self._text or "") > settings().result_days * 86_400

    @property
    def times_passed(self) -> int:
        return int(self._headers.get("torch_passed", 0))

    def give_back(self, why: str) -> NoReturn:
        raise Reject(why, requeue=True)

    def send_to(self, queue: str, priority: Priority) -> NoReturn:
        """Put it into another queue, at its front."""
        if self._keeper is None:
            raise Ignore
        self._keeper.move(self._tag, queue, priority.step)
        raise Reject(f"sent on to {queue}", requeue=True)

    def put_aside(self, seconds: float) -> NoReturn:
        """Deliver it again through its queue after a pause."""
        self._park(self._queue, seconds)
        raise Reject(f"put aside for {seconds:g} s", requeue=True)

    def set_aside(self) -> NoReturn:
        """Keep it where no agent gets it until its task may begin."""
        if self._keeper:
            self._keeper.set_aside(self._tag, self._id)
        raise Reject("set aside: its task waits for others", requeue=True)

    def leave_to_others(self, seconds: float) -> NoReturn:
        """:meth:`put_aside`, and count that this agent left it to others."""
        self._headers["torch_passed"] = self.times_passed + 1
        self._park(self._queue, seconds)
        raise Reject("left to another agent", requeue=True)

    def retry(self, queue: str, seconds: float, failure: Failure) -> NoReturn:
        """Deliver it again after a pause, as one more retry."""
        self._headers["retries"] = int(self._headers.get("retries") or 0) + 1
        self._headers["torch_passed"] = 0
        self._park(queue, seconds)
        raise Retry(failure.message, TaskFailed(failure.message), seconds)

    def bury(self) -> None:
        """Move it to the dead letters, where a person may replay it."""
        if self._keeper:
            self._keeper.bury(self._tag, self._id)

    def refuse(self, why: str) -> NoReturn:
        """Move it to the dead letters under a name of its own; the task whose id it bears may be another one."""
        if self._keeper:
            self._keeper.refuse(self._tag, why)
        raise Reject(why, requeue=False)

    @property
    def _headers(self) -> dict[str, Any]:
        headers: dict[str, Any] = self._fields.setdefault("headers", {})
        return headers

    @property
    def _queue(self) -> str:
        return queue_of(list_of_tag(self._tag))

    def _park(self, queue: str, seconds: float) -> None:
        if self._keeper is None:
            raise Ignore
        step = int(self._fields["properties"]["priority"])
        self._headers[ASKER_HEADER] = as_header(self._asker)
        self._keeper.park(self._tag, queue, step, int(seconds * 1000), written(self._fields, queue))


class Execution:
    """One delivery at one agent. Each step may be repeated."""

    _record: TaskRecord
    _result: TaskResult
    _server: str
    """The identity of the server process that has taken it for the agent."""

    def __init__(self, task: Any, host: AgentHost, inputs: tuple[Any, ...], fields: Mapping[str, Any]) -> None:
        """``inputs`` are the results of earlier tasks of a chain or chord, then the spec; ``fields`` are more of it."""
        *self._earlier, asked = inputs or ({},)
        self._task = task
        self._host = host
        self._asked = accepted(asked, task.request.id, fields)
        self._message = HeldMessage(task.request)
        self._records = fleet().records

    def run(self) -> dict[str, Any]:
        """Carry the delivery to its end: the result of a task that succeeded, else an exception for Celery."""
        gate = fleet().gate
        before, account = gate.state_beside(keys.task_record(self._asked.id))
        self._server = before.identity
        if not before.open:
            raise BrokerForgot("the broker was restarted and the fleet has not restored its state yet")
        try:
            return self._carry_out(dispatch.on_arrival(self._arrival(account)))
        except StateFolderUnusable as error:  # a full disk: no task begins without being noted
            log.error("task %s waits: %s", self._asked.id, error)
            refused = Decision(Act.PUT_ASIDE, seconds=dispatch.LATER)
        except (StaleWriter, IllegalTransition, TaskNotFound) as error:
            if gate.state() != before:
                raise BrokerForgot(f"the broker was restarted meanwhile: {error}") from error
            log.warning("task %s is left to the agent that owns it: %s", self._asked.id, error)
            refused = Decision(Act.DROP)
        return self._carry_out(refused)

    # ── the acts ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _carry_out(self, decision: Decision) -> dict[str, Any]:
        """Act on the delivery, here alone; returns the result of a task that succeeded."""
        task_id = self._asked.id
        match decision.act:
            case Act.TAKE:
                return self._carry_out(dispatch.on_reach(self._reach()))
            case Act.DO:
                self._require_known_take()
                return self._carry_out(dispatch.on_end(self._try()))
            case Act.REPORT:
                self._host.settle(task_id, self._records.account(task_id))
                return self._reported(self._record.result or TaskResult(task_id=task_id, status=self._record.state))
            case Act.FINISH:
                return self._finished(self._result, by=self._host.info)
            case Act.FORBID:
                return self._finished(_refused(task_id, decision.note), by=None)
            case Act.BURY:
                self._message.bury()  # first: a record that says "dead" has its dead letter
                return self._finished(self._result.model_copy(update={"status": TaskState.DEAD}), by=self._host.info)
            case Act.REFUSE:
                self._message.bury()
                note_denial("task.take", Asker(kind=CallerKind.PROGRAM, name="unknown"), decision.note)
                refused = _refused(task_id, decision.note)
                return self._finished(refused.model_copy(update={"status": TaskState.DEAD}), by=None)
            case Act.DROP:
                self._host.settle(task_id, self._records.account(task_id))
                raise Ignore
            case _:
                return self._send_away(decision)

    def _send_away(self, decision: Decision) -> NoReturn:
        """Give the task up for now: first in the record and the agent's journal, then with the message."""
        message = self._message
        match decision.act:
            case Act.GIVE_BACK:
                message.give_back(decision.note)
            case Act.PUT_ASIDE:
                message.put_aside(decision.seconds)
            case Act.SET_ASIDE:
                message.set_aside()
            case Act.LEAVE_TO_OTHERS:
                message.leave_to_others(decision.seconds)
            case Act.RETRY:
                assert self._result.error
                self._move(decision, self._record.tries_before, TaskStep.RETRIED)
                task_counts.retried(self._result.error, self._host.info)
                message.retry(decision.queue, pause_before_retry(decision.tries), self._result.error)
            case Act.SEND_TO_OWNER:
                log.info("task %s belongs to another agent: sent to %s", self._asked.id, decision.queue)
                self._host.drop_lost_task()
            case Act.RELEASE:
                self._move(decision, self._record.tries_before + 1)  # the task is not to blame
        message.send_to(decision.queue, decision.priority)

    # ── the facts ────────────────────────────────────────────────────────────────────────────────────────────────

    def _arrival(self, account: Mapping[str, str]) -> Arrival:
        """``account`` is what the task's record holds."""
        host, asked = self._host, self._asked
        if host.unfinished_task not in (None, asked.id):
            host.drop_lost_task()
        self._record = record = self._records.believed(asked.id, account) or self._accepted_anew()
        others: list[AgentInfo] = []
        if dispatch.should_look_for_others(record, host.info):
            others = fleet().registry.find_available_agents(record.spec.role, record.spec.skills, limit=2)
        return Arrival(
            asked=asked,
            record=record,
            agent=host.info,
            unfinished=host.unfinished_task,
            retiring=host.is_retiring,
            held=host.hold_reason,
            forbidden=self._why_forbidden(),
            swapped=self._why_swapped(),
            times_passed=self._message.times_passed,
            others=others,
        )

    def _why_forbidden(self) -> str:
        """Why who enqueued it may not have it done, whatever let the message into its queue; asked before it begins."""
        record = self._record
        if record.state.ended or record.state in HELD:
            return ""
        grants = Right.GRANT if record.spec.permissions is Permissions.ALLOW else None
        for who in {caller(), record.enqueued_by.caller if record.enqueued_by else caller()}:
            with acting_as(who):
                try:
                    require("task.enqueue", Right.ENQUEUE, Subject(), grants)
                except NotAllowed as error:
                    return str(error)
        return ""

    def _why_swapped(self) -> str:
        """Why what the record asks for is not what was signed; then what the message asks for is put back."""
        record = self._record
        if record.state.ended or record.spec == self._asked or self._records.is_signed_spec(record):
            return ""
        self._records.put_spec_back(self._asked.id, self._asked.wire())
        return f"the record of task {self._asked.id} held another spec than the one that was signed"

    def _accepted_anew(self) -> TaskRecord:
        """A record for a task that has none: the broker has forgotten it, or it ended long ago."""
        if self._message.is_older_than_records:
            self._message.refuse(
                f"task {self._asked.id} has no record, and its message was signed so long ago that it may have ended "
                "before; replay it if it is to be done now"
            )
        self._records.set_aside_unreadable(self._asked.id)
        trace = self._task.request.get(HEADER)
        self._records.accept(NewTask(self._asked.id, self._asked.wire(), queue_for(self._asked), trace=trace))
        return self._records.get(self._asked.id)

    def _reach(self) -> Reach:
        """Try to take the task for the agent; the record keeps the spec with the earlier answers."""
        task_id, info = self._asked.id, self._host.info
        if self._message.is_redelivered:
            self._records.count_redelivery(task_id)
            task_counts.redelivered(info)
        whole = None
        if self._earlier and self._record.state not in HELD:
            whole = with_earlier(self._record.spec, self._earlier)
        outcome, owner, account = self._records.take(task_id, info, spec=whole)
        if outcome is Take.TAKEN_OVER:
            log.warning("task %s taken over from %s, which is dead", task_id, owner)
        self._record = self._records.believed(task_id, account) or self._records.get(task_id)
        if outcome in (Take.TAKEN, Take.TAKEN_OVER):
            task_counts.taken(self._record, info, is_taken_over=outcome is Take.TAKEN_OVER)
            self._note("task.taken", f"from {owner}, which is dead" if outcome is Take.TAKEN_OVER else "")
        return Reach(outcome=outcome, owner=owner, record=self._record, agent=info)

    def _require_known_take(self) -> None:
        """Begin nothing that the next primary may have another agent begin; what is in the pane was begun before."""
        task_id = self._asked.id
        if self._host.unfinished_task == task_id:
            return
        try:
            fleet().fence.require_known(f"that {self._host.info.agent_id} has task {task_id}", self._server)
        except KnownToOneServer as error:
            log.warning("task %s is not begun: %s", task_id, error)
            raise

    def _try(self) -> EndOfTry:
        record, info, reason = self._record, self._host.info, ""
        try:
            self._result = self._host.execute(informed(record), record.attempts, self._message.delivery)
        except Detached:
            ending = Ending.DETACHED
        except HandedOver:
            ending = Ending.HANDED_OVER
            self._record = self._records.get(record.spec.id)
        except UsageLimited as limited:
            ending, reason = Ending.LIMITED, str(limited)
        except AgentHeld as held:
            ending, reason = Ending.HELD, str(held)
        else:
            return EndOfTry(Ending.RESULT, record, info, result=self._result, max_retries=settings().max_retries)
        return EndOfTry(ending, self._record, info, reason)

    # ── the record ───────────────────────────────────────────────────────────────────────────────────────────────

    def _move(self, decision: Decision, tries_before: int, step: TaskStep | None = None) -> None:
        """Write the decision into the record; ``tries_before`` of its attempts do not count against its retries."""
        assert decision.state
        task_id, by, note = self._asked.id, self._host.info, decision.note
        account = self._records.move(task_id, decision.state, by=by, step=step, note=note, tries_before=tries_before)
        self._host.settle(task_id, account)
        self._note(f"task.{decision.state}", note or "")

    def _note(self, what: str, why: str = "", outcome: AuditOutcome = AuditOutcome.DONE) -> None:
        """Note in this machine's audit what became of the task, by its agent, for who enqueued it."""
        info = self._host.info
        agent = Asker(kind=CallerKind.AGENT, name=info.agent_id, role=info.role)
        behalf = self._record.enqueued_by
        note_event(what, f"task {self._asked.id}", who=agent, behalf=behalf, why=why, outcome=outcome)

    def _finished(self, result: TaskResult, *, by: AgentInfo | None) -> dict[str, Any]:
        account = self._records.finish(result, by=by)
        self._host.settle(self._asked.id, account)
        task_counts.ended(self._record, result, self._host.info)
        why = result.error.message if result.error else ""
        self._note(f"task.{result.status}", why, AuditOutcome.DONE if result.succeeded else AuditOutcome.FAILED)
        with contextlib.suppress(TorchError):  # housekeeping does it, too
            set_aside.settle(followers(account), fleet())
        return self._reported(result)

    def _reported(self, result: TaskResult) -> dict[str, Any]:
        """The end of the task in Celery's own terms."""
        if result.succeeded:
            return result.model_dump(mode="json")
        if result.status is TaskState.CANCELLED:
            self._task.backend.mark_as_revoked(result.task_id, result.summary, request=self._task.request)
            raise Ignore
        raise TaskFailed(result.summary)


def _refused(task_id: str, why: str) -> TaskResult:
    """The result of a task that no agent begins."""
    failure = Failure(kind=FailureKind.REFUSED, message=why)
    return TaskResult(task_id=task_id, status=TaskState.FAILED, error=failure)


def pause_before_retry(tries: int) -> float:
    return backoff(tries, settings().retry_backoff_seconds, settings().retry_backoff_limit_seconds)


def note_fault(task_id: str, host: AgentHost, error: Exception) -> None:
    """Fail the task because Torch itself failed; else its record would say for ever that it runs."""
    failure = Failure(kind=FailureKind.INTERNAL, message=f"Torch failed: {type(error).__name__}: {error}")
    result = TaskResult(task_id=task_id, status=TaskState.FAILED, agent=host.info.agent_id, error=failure)
    with contextlib.suppress(TorchError):
        held = fleet().records.get(task_id).state in HELD
        host.settle(task_id, fleet().records.finish(result, by=host.info if held else None))


def with_earlier(spec: TaskSpec, results: list[Any]) -> TaskSpec:
    """The spec with the answers of the tasks before it in a chain or chord, as context."""
    flat = [item for result in results for item in (result if isinstance(result, list) else [result])]
    if not flat:
        return spec
    answers = [
        {key: item.get(key) for key in ("task_id", "agent", "status", "answer", "answer_file")}
        if isinstance(item, dict)
        else {"answer": item}
        for item in flat
    ]
    return spec.model_copy(update={"context": {**spec.context, "earlier": answers}})


def informed(record: TaskRecord) -> TaskSpec:
    """The spec with the notes of the agent that could not finish the task, as context."""
    handoff: dict[str, Any] = {}
    if record.handoff and record.attempts > 1:
        handoff = record.handoff.model_dump(mode="json")
    if record.handover and record.attempts > record.handover.attempt:
        handoff |= record.handover.for_successor
    if not handoff:
        return record.spec
    return record.spec.model_copy(update={"context": {**record.spec.context, "handoff": handoff}})

"""The Celery tasks."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import Any

import redis
from celery import Task as CeleryTask
from celery.exceptions import Ignore, Reject, Retry
from tenacity import Retrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from torch_tasks.app import RUN, accepted, app
from torch_tasks.errors import (
    BrokerForgot,
    BrokerUnreachable,
    IllegalTransition,
    StaleWriter,
    StateFolderUnusable,
    TaskFailed,
    TaskNotFound,
    TorchError,
)
from torch_tasks.fleet import fleet
from torch_tasks.keys import agent_queue
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.host import AgentHeld, AgentHost, Detached, HandedOver, UsageLimited
from torch_tasks.model.routing import queue_for
from torch_tasks.model.task import HELD, Failure, FailureKind, Priority, TaskRecord, TaskResult, TaskSpec, TaskState
from torch_tasks.settings import settings
from torch_tasks.store.tasks import Take
from torch_tasks.system.loops import backoff
from torch_tasks.tasks.envelope import Envelope

log = logging.getLogger(__name__)

AWAY = (BrokerUnreachable, BrokerForgot, redis.ConnectionError, redis.TimeoutError)

#: Seconds after which a task that this agent leaves to another comes up again.
SOON = 1.0
#: The same for a worker that took a task it can never do.
_LATER = 5.0
#: How often an agent that failed at a task leaves it to others before it tries again itself.
_PASSES = 5


class RunTask(CeleryTask):
    """``torch.run``: specs go in as :class:`TaskSpec` or as plain fields."""

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """A signature under the spec's own id, so that a result in a canvas is found by the id its user knows."""
        if args:
            *earlier, spec = args
            if isinstance(spec, TaskSpec):
                args = (*earlier, spec.wire())
                starkwargs.setdefault("task_id", spec.id)
        return super().signature(args, *starargs, **starkwargs)

    subtask = signature


@app.task(bind=True, base=RunTask, name=RUN, max_retries=None, throws=(TaskFailed,))
def run(self: Any, *inputs: Any) -> dict[str, Any]:
    """Have this worker's agent do a task. The last input is the spec, what comes before are earlier tasks' results."""
    host: AgentHost | None = self.app.host
    if host is None:
        raise Envelope(self.request).put_aside(_LATER)  # this worker hosts no agent
    again = Retrying(
        retry=retry_if_exception_type(AWAY),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=lambda _: host.leaving,
        reraise=True,
    )
    try:
        # Each step of it may be repeated: what is done already is only told again.
        return dict(again(_run, self, host, inputs))
    except AWAY as error:
        raise Reject(f"left while the broker was away: {error}", requeue=True) from error
    except (Ignore, Reject, Retry, TaskFailed):
        raise
    except Exception as error:
        _give_up(self.request.id, host, error)
        raise


def _run(task: Any, host: AgentHost, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Do the task; what the records refuse is left to whoever has it, unless it is the broker that has forgotten."""
    task_id, gate = task.request.id, fleet().gate
    before = gate.state()
    if not before.open:
        raise BrokerForgot("the broker was restarted and does not know yet what the fleet knows")
    try:
        return _work(task, host, inputs)
    except StateFolderUnusable as error:  # a full disk: nothing is lost, and nothing begun without being noted
        log.error("%s: waits: %s", task_id, error)
        raise Envelope(task.request).put_aside(_LATER) from None
    except (StaleWriter, IllegalTransition, TaskNotFound) as error:
        if gate.state() != before:
            raise BrokerForgot(f"the broker was restarted meanwhile: {error}") from error
        log.warning("%s: left to whoever has it: %s", task_id, error)
        host.settle(task_id, fleet().records.account(task_id))
        raise Ignore from None


def _work(task: Any, host: AgentHost, inputs: tuple[Any, ...]) -> dict[str, Any]:
    *earlier, fields = inputs
    envelope = Envelope(task.request)
    record = _take(accepted(fields, task.request.id), earlier, host, envelope)
    spec = record.spec
    if _was_handed_over(record, host.info):
        raise _handed_on(spec.id, host, envelope)
    if record.state.ended:
        host.settle(spec.id, fleet().records.account(spec.id))
        return _told(task, record.result or TaskResult(task_id=spec.id, status=record.state))
    try:
        result = host.execute(informed(record), record.attempts, envelope.delivery)
    except Detached:
        # First of all in the queue that the agent's next worker reads.
        raise envelope.sent_to(agent_queue(host.info.agent_id), Priority.URGENT) from None
    except HandedOver:
        raise _handed_on(spec.id, host, envelope) from None
    except UsageLimited as limited:
        raise _left_to_others(record, host, TaskState.PARKED, str(limited), envelope) from None
    except AgentHeld as held:
        raise _left_to_others(record, host, TaskState.QUEUED, f"given back: {held}", envelope) from None
    return _conclude(task, record, host, result, envelope)


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
    """The spec with what is known of the agent that could not finish the task, as context."""
    handoff: dict[str, Any] = {}
    if record.handoff and record.attempts > 1:
        handoff = record.handoff.model_dump(mode="json")
    if record.handover and record.attempts > record.handover.attempt:
        handoff |= record.handover.for_successor
    if not handoff:
        return record.spec
    return record.spec.model_copy(update={"context": {**record.spec.context, "handoff": handoff}})


def _take(asked: TaskSpec, earlier: list[Any], host: AgentHost, envelope: Envelope) -> TaskRecord:
    """Make the task this agent's own, unless it has ended. What another agent holds goes to that agent's queue.

    What counts is the task as it was accepted first; with the earlier answers it is whole, and kept so.
    """
    records, info = fleet().records, host.info
    _require_free(host, asked, envelope)
    record = records.find(asked.id)
    if record is None:
        records.accept(asked.id, asked.wire(), queue_for(asked))
        record = records.get(asked.id)
    if record.state.ended:
        return record
    if envelope.is_redelivered:
        records.count_redelivery(asked.id)
    begun = record.state in HELD
    if not begun and not _able(record.spec, info):  # a second delivery under this id asked for somebody else
        raise envelope.sent_to(queue_for(record.spec), record.spec.priority)
    if not begun and _better_elsewhere(record, info, envelope):
        raise envelope.passed_on(SOON)
    whole = None if begun or not earlier else json.dumps(with_earlier(record.spec, earlier).wire())
    outcome, whom = records.take(asked.id, info, spec=whole)
    if outcome is Take.OWNED:
        log.info("%s: belongs to %s, handed back", asked.id, whom)
        host.drop_lost_task()
        raise envelope.sent_to(agent_queue(whom), Priority.URGENT)
    if outcome is Take.TAKEN_OVER:
        log.warning("%s: taken over from %s, which is dead", asked.id, whom)
    return records.get(asked.id)


def _require_free(host: AgentHost, asked: TaskSpec, envelope: Envelope) -> None:
    """Leave the task to others, or for later, if the agent begins none now."""
    if host.unfinished_task not in (None, asked.id):
        host.drop_lost_task()
    if host.retiring and host.unfinished_task != asked.id:
        raise envelope.sent_to(queue_for(asked), asked.priority)
    if host.unfinished_task not in (None, asked.id):
        raise envelope.put_aside(SOON)  # the pane was left with another task, whose message is on its way
    if host.unfinished_task is None and (held := host.hold_reason):
        raise Reject(f"not begun: {held}", requeue=True)


def _able(spec: TaskSpec, info: AgentInfo) -> bool:
    return spec.agent == info.agent_id if spec.agent else info.serves(spec.role, spec.skills)


def _was_handed_over(record: TaskRecord, info: AgentInfo) -> bool:
    """It was handed over at the very moment that this agent took it, or by one that is dead."""
    handover = record.handover
    if handover is None or record.state.ended or handover.attempt == record.attempts:
        return False
    return not _able(record.spec, info)


def _better_elsewhere(record: TaskRecord, info: AgentInfo, envelope: Envelope) -> bool:
    """Another one should try: the agent handed the task over, or failed at it before and another one is free.

    Who is free is not waited for for ever.
    """
    registry = fleet().registry
    handover = record.handover
    if handover and handover.owner == info.agent_id and handover.attempt == record.attempts and not record.spec.agent:
        able = registry.find_available_agents(record.spec.role, record.spec.skills, limit=2)
        return any(other.agent_id != info.agent_id for other in able)
    if record.agent != info.agent_id or record.attempts <= record.tries_before or envelope.times_passed >= _PASSES:
        return False
    if record.spec.agent:
        return False
    best = registry.find_available_agents(record.spec.role, record.spec.skills, limit=2)
    return any(other.free and other.agent_id != info.agent_id for other in best)


def _conclude(task: Any, record: TaskRecord, host: AgentHost, result: TaskResult, envelope: Envelope) -> dict[str, Any]:
    """Write the end of a run into the record, or have the task tried again where that is worth it."""
    records, spec, failure = fleet().records, record.spec, result.error
    allowed = settings().max_retries if spec.max_retries is None else spec.max_retries
    tries = result.attempts - record.tries_before
    retriable = failure is not None and failure.kind.worth_retrying
    if failure and retriable and tries <= allowed:
        note = f"attempt {result.attempts}: {failure.message}"
        host.settle(spec.id, records.move(spec.id, TaskState.QUEUED, by=host.info, note=note))
        raise envelope.tried_again(queue_for(spec), _pause_before_next_try(tries), failure)
    if retriable and allowed:
        result = result.model_copy(update={"status": TaskState.DEAD})
        envelope.bury()  # before the record says so: whoever hears of it finds it among the dead letters
    host.settle(spec.id, records.finish(result, by=host.info))
    return _told(task, result)


def _left_to_others(record: TaskRecord, host: AgentHost, state: TaskState, note: str, envelope: Envelope) -> Exception:
    """Put a task back that the agent may not work on now: any other agent may take it, or this one later."""
    # The task is not to blame: the try does not count.
    tries_before = record.tries_before + 1
    account = fleet().records.move(record.spec.id, state, by=host.info, note=note, tries_before=tries_before)
    host.settle(record.spec.id, account)
    return envelope.sent_to(queue_for(record.spec), record.spec.priority)


def _handed_on(task_id: str, host: AgentHost, envelope: Envelope) -> Exception:
    """Send a task that this agent has let go of to the one whom it was handed over to."""
    record = fleet().records.get(task_id)
    assert record.handover
    note = f"handed over to {record.handover.to}"
    tries_before = record.tries_before + 1  # nobody failed
    account = fleet().records.move(task_id, TaskState.QUEUED, by=host.info, note=note, tries_before=tries_before)
    host.settle(task_id, account)
    return envelope.sent_to(queue_for(record.spec), record.spec.priority)


def _pause_before_next_try(tries: int) -> float:
    return backoff(tries, settings().retry_backoff_seconds, settings().retry_backoff_limit_seconds)


def _give_up(task_id: str, host: AgentHost, error: Exception) -> None:
    """Torch itself failed: the record says so, or the task would seem to run for ever."""
    failure = Failure(kind=FailureKind.INTERNAL, message=f"Torch failed: {type(error).__name__}: {error}")
    result = TaskResult(task_id=task_id, status=TaskState.FAILED, agent=host.info.agent_id, error=failure)
    with contextlib.suppress(TorchError):
        held = fleet().records.get(task_id).state in HELD
        host.settle(task_id, fleet().records.finish(result, by=host.info if held else None))


def _told(task: Any, result: TaskResult) -> dict[str, Any]:
    """The end of a task in Celery's own terms."""
    if result.succeeded:
        return result.model_dump(mode="json")
    if result.status is TaskState.CANCELLED:
        task.backend.mark_as_revoked(result.task_id, result.summary, request=task.request)
        raise Ignore
    raise TaskFailed(result.summary)


def cancelled(task_id: str, message: str) -> TaskResult:
    """The result of a task that nobody wants any more."""
    return TaskResult(
        task_id=task_id, status=TaskState.CANCELLED, error=Failure(kind=FailureKind.CANCELLED, message=message)
    )


@app.task(name="torch.prune")
def prune() -> int:
    """Drop from the indexes what has expired."""
    return fleet().records.prune() + fleet().checkins.prune()

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
from torch_tasks.errors import BrokerUnreachable, IllegalTransition, StaleWriter, TaskFailed, TaskNotFound, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.hosting import AgentHost, Detached
from torch_tasks.keys import agent_queue
from torch_tasks.models import HELD, AgentInfo, Failure, FailureKind, TaskRecord, TaskResult, TaskSpec, TaskState
from torch_tasks.routing import queue_for
from torch_tasks.settings import settings

log = logging.getLogger(__name__)


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
        raise Reject("this worker hosts no agent", requeue=True)
    again = Retrying(
        retry=retry_if_exception_type((BrokerUnreachable, redis.ConnectionError, redis.TimeoutError)),
        wait=wait_random_exponential(max=5),
        stop=lambda _: host.leaving,
        reraise=True,
    )
    try:
        # Each step of it may be repeated: what is done already is only told again.
        return dict(again(_run, self, host, inputs))
    except (BrokerUnreachable, redis.ConnectionError, redis.TimeoutError) as error:
        raise Reject(f"left while the broker was away: {error}", requeue=True) from error
    except (Ignore, Reject, Retry, TaskFailed):
        raise
    except Exception as error:
        _give_up(self.request.id, host, error)
        raise


def _run(task: Any, host: AgentHost, inputs: tuple[Any, ...]) -> dict[str, Any]:
    *earlier, fields = inputs
    record = _take(accepted(fields, task.request.id), earlier, host)
    spec = record.spec
    if record.state.ended:
        return _told(task, record.result or TaskResult(task_id=spec.id, status=record.state))
    try:
        result = host.execute(spec, record.attempts)
    except Detached:
        run.apply_async((spec,), task_id=spec.id, queue=agent_queue(host.info.agent_id))
        raise Ignore from None
    except StaleWriter as error:
        log.warning("%s: left to its new owner: %s", spec.id, error)
        raise Ignore from None
    return _conclude(task, spec, host, result)


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


def _take(asked: TaskSpec, earlier: list[Any], host: AgentHost) -> TaskRecord:
    """Make the task this agent's own, unless it has ended. What another agent holds goes back to that agent's queue.

    What counts is the task as it was accepted first; with the earlier answers it is whole, and kept so.
    """
    records, info = fleet().records, host.info
    record = records.find(asked.id)
    if record is None:
        records.accept(asked.id, asked.wire(), queue_for(asked))
        record = records.get(asked.id)
    if record.state not in HELD and not record.state.ended:
        if not _able(record.spec, info):  # a second delivery under this id asked for somebody else
            run.apply_async((*earlier, record.spec.wire()), task_id=asked.id, queue=queue_for(record.spec))
            raise Ignore
        whole = json.dumps(with_earlier(record.spec, earlier).wire()) if earlier else None
        try:
            records.move(asked.id, TaskState.ASSIGNED, by=info, attempts=record.attempts + 1, spec=whole)
        except (IllegalTransition, StaleWriter) as error:
            log.warning("%s: somebody was faster: %s", asked.id, error)
        record = records.get(asked.id)
    if record.state in HELD and record.agent != info.agent_id:
        log.info("%s: belongs to %s, handed back", asked.id, record.agent)
        run.apply_async((record.spec,), task_id=asked.id, queue=agent_queue(str(record.agent)))
        raise Ignore
    return record


def _able(spec: TaskSpec, info: AgentInfo) -> bool:
    return spec.agent == info.agent_id if spec.agent else info.serves(spec.role, spec.skills)


def _conclude(task: Any, spec: TaskSpec, host: AgentHost, result: TaskResult) -> dict[str, Any]:
    """Write the end of a run into the record, or try the task again where that is worth it."""
    records = fleet().records
    failure = result.error
    allowed = settings().max_retries if spec.max_retries is None else spec.max_retries
    try:
        if failure and failure.kind.worth_retrying and result.attempts <= allowed:
            records.move(spec.id, TaskState.QUEUED, by=host.info, note=f"attempt {result.attempts}: {failure.message}")
            pause = settings().retry_backoff_seconds * 2 ** (result.attempts - 1)
            raise task.retry(exc=TaskFailed(failure.message), countdown=pause, queue=queue_for(spec))
        records.finish(result, by=host.info)
    except (StaleWriter, IllegalTransition, TaskNotFound) as error:
        log.warning("%s: result refused: %s", spec.id, error)
        raise Ignore from None
    return _told(task, result)


def _give_up(task_id: str, host: AgentHost, error: Exception) -> None:
    """Torch itself failed: the record says so, or the task would seem to run for ever."""
    failure = Failure(kind=FailureKind.INTERNAL, message=f"Torch failed: {type(error).__name__}: {error}")
    result = TaskResult(task_id=task_id, status=TaskState.FAILED, agent=host.info.agent_id, error=failure)
    with contextlib.suppress(TorchError):
        fleet().records.finish(result, by=host.info)


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
    """Drop from the task index what has expired."""
    return fleet().records.prune()

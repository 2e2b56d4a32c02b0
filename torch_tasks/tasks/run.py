"""The Celery tasks ``torch.run`` and ``torch.prune``."""

from __future__ import annotations

import logging
from typing import Any

from celery import Task as CeleryTask
from celery.exceptions import Ignore, Reject, Retry
from tenacity import Retrying, retry_if_exception
from tenacity.wait import wait_random_exponential

from torch_tasks.app import RUN, app
from torch_tasks.errors import BrokerAway, InvalidTask, NotInWorker, TaskFailed, WrongType
from torch_tasks.fleet import fleet
from torch_tasks.model.host import AgentHost
from torch_tasks.model.task import TaskSpec
from torch_tasks.tasks.dispatch import LATER
from torch_tasks.tasks.execution import Execution, HeldMessage, note_fault
from torch_tasks.tasks.system_task import SystemTask

log = logging.getLogger(__name__)


class RunTask(CeleryTask):
    """``torch.run``: what is asked for goes in as a prompt, a :class:`TaskSpec`, or plain fields."""

    def signature(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """A signature under the spec's own id, so that a canvas finds the result by it."""
        if args and isinstance(args[-1], (str, TaskSpec)):
            *earlier, asked = args
            spec = TaskSpec.of(asked, kwargs or {})
            args, kwargs = (*earlier, spec.wire()), None
            options.setdefault("task_id", spec.id)
        return super().signature(args, kwargs, *more, **options)

    subtask = signature


@app.task(bind=True, base=RunTask, name=RUN, max_retries=None, throws=(TaskFailed,))
def run(self: Any, *inputs: Any, **fields: Any) -> dict[str, Any]:
    """Have this worker's agent do a task. The last input is the spec, those before it are earlier tasks' results."""
    if self.request.called_directly or self.request.is_eager:
        raise NotInWorker(
            "run(…) would do the task in this process, which hosts no agent; hand it to the fleet with run.delay(…) "
            "or Torch().enqueue(…), and wait for its result there"
        )
    host: AgentHost | None = self.app.host
    if host is None:  # this worker hosts no agent
        HeldMessage(self.request).put_aside(LATER)

    def is_tried_again(error: BaseException) -> bool:
        """While it is in the pane, a task is given to no other agent."""
        in_pane = host.unfinished_task == self.request.id
        return isinstance(error, BrokerAway) or (in_pane and isinstance(error, WrongType))

    again = Retrying(
        retry=retry_if_exception(is_tried_again),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=lambda _: host.is_leaving,
        reraise=True,
    )
    try:
        return dict(again(lambda: Execution(self, host, inputs, fields).run()))
    except WrongType as error:
        log.error("task %s waits: %s", self.request.id, error)
    except BrokerAway as error:
        raise Reject(f"left while the broker was away: {error}", requeue=True) from error
    except (Ignore, Reject, Retry, TaskFailed):
        raise
    except InvalidTask as error:  # it was not sent through Torch, which would have refused it
        HeldMessage(self.request).refuse(str(error))
    except Exception as error:
        note_fault(self.request.id, host, error)
        raise
    return HeldMessage(self.request).put_aside(LATER)  # until the key has its own type again


@app.task(base=SystemTask, name="torch.prune", is_periodic=True)
def prune() -> int:
    """Drop expired tasks and check-ins from the indexes."""
    return fleet().records.prune() + fleet().checkins.prune()

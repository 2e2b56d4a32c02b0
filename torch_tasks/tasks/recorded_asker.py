"""Who asked for a Celery task travels in its message: what a worker does for it, it does in that caller's name.

So the process that carries a request out decides again whether its caller may, and what follows from it, as the next
task of a chain, belongs to the same caller.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from contextvars import ContextVar
from typing import Any

from celery import signals
from pydantic import ValidationError

from torch_tasks.caller import CallerKind, acting_as
from torch_tasks.model.asker import Asker
from torch_tasks.model.traceparent import HEADER, TraceParent
from torch_tasks.settings import settings
from torch_tasks.system.log_records import logging_about
from torch_tasks.transport.envelope import ASKER_HEADER, SIGNER_HEADER, as_header, asker_of

_UNKNOWN = Asker(kind=CallerKind.PROGRAM, name="celery")
"""Who asks in a message that no process of Torch sent: it has the rights of a program."""
_running: ContextVar[ExitStack | None] = ContextVar("_running", default=None)


def stamp(headers: dict[str, Any]) -> None:
    """Note in a message's headers who asks."""
    headers[ASKER_HEADER] = as_header(Asker.now(settings().node))
    headers.pop(SIGNER_HEADER, None)


def asker_in(headers: Any) -> Asker:
    """Who asked, as the headers of a message say, and as far as its signer may say that."""
    signer = None
    with suppress(ValidationError):
        signer = Asker.model_validate(headers.get(SIGNER_HEADER))
    return asker_of(headers, signer) or _UNKNOWN


@signals.task_prerun.connect
def _begin(task: Any = None, **_: Any) -> None:
    asker, trace = asker_in(task.request), TraceParent.read(task.request.get(HEADER))
    running = ExitStack()
    running.enter_context(acting_as(asker.caller))
    about = {"task": str(task.request.id), "caller": asker.name, **({"trace": trace.trace_id} if trace else {})}
    running.enter_context(logging_about(**about))
    _running.set(running)


@signals.task_postrun.connect
def _end(**_: Any) -> None:
    if running := _running.get():
        _running.set(None)
        running.close()

"""Who asked for a Celery task travels in its message: what a worker does for it, it does in that caller's name.

So the process that carries a request out decides again whether its caller may, and what follows from it, as the next
task of a chain, belongs to the same caller.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from celery import signals
from pydantic import ValidationError

from torch_tasks.caller import CallerKind, acting_as
from torch_tasks.model.asker import Asker
from torch_tasks.settings import settings
from torch_tasks.transport.envelope import ASKER_HEADER, SIGNER_HEADER, as_header, asker_of

_UNKNOWN = Asker(kind=CallerKind.PROGRAM, name="celery")
"""Who asks in a message that no process of Torch sent: it has the rights of a program."""
_running: ContextVar[Any] = ContextVar("_running", default=None)


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
    acting = acting_as(asker_in(task.request).caller)
    acting.__enter__()
    _running.set(acting)


@signals.task_postrun.connect
def _end(**_: Any) -> None:
    if acting := _running.get():
        _running.set(None)
        acting.__exit__(None, None, None)

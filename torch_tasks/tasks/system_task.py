"""The Celery tasks that node workers do for the fleet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any

from celery import Task as CeleryTask
from pydantic import ValidationError, validate_call

from torch_tasks.errors import WrongType
from torch_tasks.fleet import fleet
from torch_tasks.model.fields import readable
from torch_tasks.model.reader import shortened
from torch_tasks.tasks.dispatch import LATER
from torch_tasks.tasks.execution import HeldMessage

log = logging.getLogger(__name__)


class SystemTask(CeleryTask):
    """A task whose arguments are read by the types of its parameters; with wrong ones, its message is a dead letter.

    A message that comes again after it was done, as one that somebody had copied, gets what the first one got.

    While a key that it needs is of another type than Torch keeps there, it waits; a periodic one fails, for beat sends
    it again.
    """

    throws = (WrongType,)
    is_periodic = False
    """Beat sends it again and again; a second time does no harm."""
    finds_what_it_did = False
    """It looks by itself what of it was done before."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            args, kwargs = self._arguments(*args, **kwargs)
        except ValidationError as error:  # Torch sends no such arguments
            HeldMessage(self.request).refuse(f"it is no valid {self.name}: {shortened(readable(error))}")
        try:
            return self._done_once(*args, **kwargs)
        except WrongType as error:
            if self.is_periodic:
                raise
            log.error("%s waits: %s", self.name, error)
        return HeldMessage(self.request).put_aside(LATER)

    def _done_once(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_periodic or self.finds_what_it_did:
            return self.run(*args, **kwargs)
        orders, task_id = fleet().done_orders, self.request.id
        if done := orders.find(task_id):
            log.warning("%s %s was done before: its message does nothing a second time", self.name, task_id)
            return done.outcome
        outcome = self.run(*args, **kwargs)
        orders.note(task_id, outcome)
        return outcome

    @cached_property
    def _arguments(self) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        return _reader_of(self.run)


def _reader_of(run: Callable[..., Any]) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """A function that takes what ``run`` takes, and returns it as the types of its parameters say."""

    @wraps(run)
    def taken(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    return validate_call(taken)

"""A step of a store that goes to the broker together with the message that is published: both are done, or neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Placing(NamedTuple):
    """Where a message is to lie, and which bell wakes who waits for it."""

    list: str
    bell: str
    message: str


Step = Callable[[Placing], None]

_step: ContextVar[Step | None] = ContextVar("_step", default=None)


@contextmanager
def joined(step: Step) -> Iterator[None]:
    """Have this step, and not the channel, put the message that this thread publishes now into its queue."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


def joined_step() -> Step | None:
    return _step.get()

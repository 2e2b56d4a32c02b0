"""Which trace something belongs to, as the header ``traceparent`` of the W3C says it.

The ids of a task's spans follow from the task: each process that reads its record makes the same ones, and none is lost
with a process.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, NamedTuple, Self

from pydantic import BeforeValidator

HEADER = "traceparent"
"""The header of a message, and in lower case the variable of an environment, in which it travels."""
_FORM = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.ASCII)


class TraceParent(NamedTuple):
    """A trace, and the span in it under which something happens."""

    trace_id: str
    span_id: str

    @classmethod
    def read(cls, text: object) -> Self | None:
        """What was written so; None if it is nothing of the kind."""
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if not found or not text or str(text).startswith("ff") or not int(found[1], 16) or not int(found[2], 16):
            return None
        return cls(found[1], found[2])

    @classmethod
    def new(cls, seed: str) -> Self:
        """A trace that begins with what has this id; its first spans have no parent."""
        trace_id = _hex(16, "trace", seed)
        return cls(trace_id, _no_span(trace_id))

    @classmethod
    def of(cls, text: object, task_id: str) -> Self:
        """The one that a task's record holds; of a task that came without one, its own."""
        return cls.read(text) or cls.new(task_id)

    def under(self, task_id: str) -> Self:
        """For what happens within this task."""
        return type(self)(self.trace_id, span_id(task_id))

    def under_message(self, message_id: str) -> Self:
        """For what a message leads to."""
        return type(self)(self.trace_id, message_span(message_id))

    @property
    def parent(self) -> str | None:
        """The span above; None if there is none."""
        return None if self.span_id == _no_span(self.trace_id) else self.span_id

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


def place_in_trace(text: object) -> str | None:
    """What was written so, in the one form in which it is kept; None if it is nothing of the kind."""
    found = TraceParent.read(text)
    return str(found) if found else None


PlaceInTrace = Annotated[str | None, BeforeValidator(place_in_trace)]
"""A field for a ``traceparent``: what is none is dropped, whoever wrote it."""


def span_id(*parts: object) -> str:
    """The id of a task's span: the task's id, then what tells the span from its others."""
    return _hex(8, "span", *parts)


def message_span(message_id: str) -> str:
    """The id of a message's span; a task may have the same id as a message."""
    return span_id("message", message_id)


def _no_span(trace_id: str) -> str:
    """What stands for the span above where there is none: the form has no empty one."""
    return _hex(8, "no span", trace_id)


def _hex(size: int, *parts: object) -> str:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(errors="replace"), digest_size=size).hexdigest()

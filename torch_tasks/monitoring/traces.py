"""One trace, gathered from the records of its tasks, its messages, and the fire of the check-in that began it."""

from __future__ import annotations

from collections.abc import Callable

from torch_tasks.fleet import Fleet
from torch_tasks.model.message import Message, MessageRecord
from torch_tasks.model.message_trace import spans_of_fire, spans_of_message
from torch_tasks.model.task import TaskRecord
from torch_tasks.model.trace import Span, Trace, spans_of
from torch_tasks.model.traceparent import TraceParent

MOST_TRACED = 100
"""So many tasks and so many messages of a trace are drawn: the asked task, and those that were accepted first."""


class TraceReader:
    """Reads traces of one fleet, with the tasks and messages alone that the caller may see."""

    def __init__(self, of: Fleet, may_see_task: Callable[[str], bool], may_see: Callable[[Message], bool]) -> None:
        self._fleet = of
        self._may_see_task = may_see_task
        self._may_see_message = may_see

    def around(self, record: TaskRecord) -> Trace:
        """The trace of this task."""
        trace_id = TraceParent.of(record.trace, record.spec.id).trace_id
        tasks, tasks_left = self._tasks(trace_id, record.spec.id)
        messages, messages_left = self._messages(trace_id)
        began = self._fleet.checkins.beginning_of(trace_id)
        spans = [*(spans_of_fire(*began) if began else ()), *tasks, *messages]
        return Trace(trace_id=trace_id, spans=tuple(spans), left_out=tasks_left + messages_left)

    def _tasks(self, trace_id: str, asked: str) -> tuple[list[Span], int]:
        """The spans of the tasks, and how many tasks are left out."""
        ids = [one for one in self._fleet.records.together(trace_id) if one == asked or self._may_see_task(one)]
        shown = [asked, *(one for one in ids if one != asked)][:MOST_TRACED]
        known = filter(None, self._fleet.records.find_all(shown))
        spans: list[Span] = []
        for one in sorted(known, key=lambda one: (one.created_at, one.spec.id)):
            spans += spans_of(one, self._fleet.records.history(one.spec.id))
        return spans, len({*ids, asked}) - len(shown)

    def _messages(self, trace_id: str) -> tuple[list[Span], int]:
        """The spans of the messages, and how many messages are left out."""
        ids = self._fleet.inboxes.together(trace_id)
        found = [one for one in self._fleet.inboxes.records(ids[:MOST_TRACED]) if one]
        known = {one.message.id: one for one in found}
        spans: list[Span] = []
        for one in found:
            if self._may_see_message(one.message):
                spans += spans_of_message(one, answered_by(one, self._fleet, known))
        return spans, max(0, len(ids) - MOST_TRACED)


def answered_by(
    record: MessageRecord, of: Fleet, known: dict[str, MessageRecord] | None = None
) -> MessageRecord | None:
    """The message to which this one replies, if it does and that is still known."""
    asked = record.message.reply_to
    if asked is None:
        return None
    return (known or {}).get(asked) or of.inboxes.records([asked])[0]

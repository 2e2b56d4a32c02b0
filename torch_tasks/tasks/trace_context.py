"""Of which trace a message is a part: it travels in its headers, and so through chains, groups and chords."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch_tasks.app import CHECKIN, RUN, app
from torch_tasks.caller import caller, own_desk
from torch_tasks.errors import BrokerAway
from torch_tasks.fleet import fleet
from torch_tasks.model.traceparent import HEADER, TraceParent, place_in_trace
from torch_tasks.system.surrounding_span import surrounding_span


def carry(headers: dict[str, Any]) -> None:
    """Note in a message's headers its place in a trace, unless they have one: under what is being done now.

    What nothing surrounds begins a trace, one for all tasks of a canvas.
    """
    named = place_in_trace(headers.get(HEADER))
    first = str(headers.get("root_id") or headers.get("id"))
    headers[HEADER] = str(named or _of_running_task() or _of_agent() or surrounding_span() or TraceParent.new(first))


def _of_running_task() -> TraceParent | None:
    """The Celery task in which this is sent."""
    task = app.current_worker_task
    if task is None:
        return None
    request = task.request
    known = TraceParent.of(request.get(HEADER), str(request.root_id or request.id))
    return known.under(str(request.id)) if task.name in (RUN, CHECKIN) else known


def _of_agent() -> TraceParent | None:
    """The task or message that the agent works on who sends this."""
    asker = caller()
    if own_desk() or not asker.agent:
        return None
    if place := TraceParent.read(asker.span):
        return place
    if not (task_id := asker.task):
        return None
    with suppress(BrokerAway):
        return fleet().records.place_in_trace(task_id)
    return None

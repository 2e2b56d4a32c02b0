"""Sends the spans of what has ended to a collector of OpenTelemetry's, if the user names one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch_tasks.fleet import Fleet
from torch_tasks.model.fields import Model
from torch_tasks.model.message import SETTLED, MessageRecord, MessageState
from torch_tasks.model.message_trace import spans_of_fire, spans_of_message
from torch_tasks.model.task import ENDED
from torch_tasks.model.trace import Span, spans_of
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.monitoring.feed import feed
from torch_tasks.monitoring.flow import FlowEvent, FlowKind
from torch_tasks.monitoring.otlp_spans import SpanCollector, otlp_message, otlp_message_of_others
from torch_tasks.monitoring.traces import answered_by
from torch_tasks.system.files import write_private
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

_WAIT_SECONDS = 2.0


class SpanPlace(Model):
    """After which place in the flow of events the next spans are to be sent."""

    place: str


class SpanSender:
    """Follows the ends of tasks and messages from where the last node worker was, so that none is left out.

    Each node sends those of its own agents. What no live node's agent had is sent by the first of the live nodes. Spans
    are drawn from records, so those that are sent twice are the same. The fire of a check-in goes before the first of
    what it led to.
    """

    def __init__(self, endpoint: str, fleet: Fleet) -> None:
        self._fleet = fleet
        self._node = fleet.settings.node
        self._collector = SpanCollector(endpoint, fleet.settings.collector_headers)
        self._file = fleet.settings.state.span_place
        self.loop = Loop("spans", self._send_next, longest_retry_seconds=60.0)

    def _send_next(self) -> None:
        place = self._place()
        page = feed().after(place, _WAIT_SECONDS, _is_end) if place else feed().now()
        if page.missed:
            log.warning(
                "the spans of some tasks and messages are not sent: the broker does not keep that long what ended"
            )
        online = self._fleet.nodes.online() if page.events else []
        for event in page.events:
            if event.kind is FlowKind.TASKS:
                self._send_task(event.id, online)
            else:
                self._send_message(event, online)
        if page.place != place:
            write_private(self._file, SpanPlace(place=page.place).model_dump_json())

    def _send_task(self, task_id: str, online: list[str]) -> None:
        record = self._fleet.records.find(task_id)
        if record and record.state.ended and self._is_ours(record.node, online):
            self._send_fire_before(TraceParent.of(record.trace, task_id), task_id)
            spans = spans_of(record, self._fleet.records.history(task_id))
            self._collector.send(otlp_message(record, spans, self._node))

    def _send_message(self, event: FlowEvent, online: list[str]) -> None:
        (record,) = self._fleet.inboxes.records([event.id])
        place = TraceParent.read(record.message.traceparent) if record else None
        if record is None or place is None or not _ends(record, event):
            return
        target = next(iter(self._fleet.registry.get_agents([record.message.target])), None)
        if self._is_ours(target.node if target else None, online):
            self._send_fire_before(place, record.message.id)
            self._send_others(place.trace_id, spans_of_message(record, answered_by(record, self._fleet)))

    def _send_fire_before(self, place: TraceParent, leads_to: str) -> None:
        """Send the fire that a trace began with, if this is the task or the first message that it led to."""
        began = self._fleet.checkins.beginning_of(place.trace_id)
        if began and leads_to in (began[1].task, *(one.message for one in began[1].receipts[:1])):
            self._send_others(place.trace_id, spans_of_fire(*began))

    def _send_others(self, trace_id: str, spans: Sequence[Span]) -> None:
        self._collector.send(otlp_message_of_others(trace_id, spans, self._node))

    def _is_ours(self, node: str | None, online: list[str]) -> bool:
        return node == self._node or (node not in online and self._node == min(online, default=self._node))

    def _place(self) -> str | None:
        try:
            return SpanPlace.model_validate_json(self._file.read_bytes()).place
        except (OSError, ValueError):
            return None


def _is_end(event: FlowEvent) -> bool:
    return event.what in (ENDED if event.kind is FlowKind.TASKS else SETTLED if event.kind is FlowKind.MESSAGES else ())


def _ends(record: MessageRecord, event: FlowEvent) -> bool:
    """Whether a message ended with this; one that is read in a pane ended when it was delivered there."""
    delivered, read = record.acknowledged_at, record.read_at
    was_delivered = event.what == MessageState.READ and delivered and read and read > delivered
    return record.state.settled and not was_delivered

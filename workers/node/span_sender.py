"""Sends the spans of tasks that have ended to a collector of OpenTelemetry's, if the user names one."""

from __future__ import annotations

import logging

from torch_tasks.fleet import Fleet
from torch_tasks.model.fields import Model
from torch_tasks.model.task import ENDED, TaskRecord
from torch_tasks.model.trace import spans_of
from torch_tasks.monitoring.feed import feed
from torch_tasks.monitoring.flow import FlowEvent, FlowKind
from torch_tasks.monitoring.otlp_spans import SpanCollector, otlp_message
from torch_tasks.system.files import write_private
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

_WAIT_SECONDS = 2.0


class SpanPlace(Model):
    """After which place in the flow of events the next spans are to be sent."""

    place: str


class SpanSender:
    """Follows the ends of tasks from where the last node worker was, so that none is left out if it is killed.

    Each node sends those of its own agents. What no live node's agent had is sent by the first of the live nodes. A
    task's spans are drawn from its record, so those that are sent twice are the same.
    """

    def __init__(self, endpoint: str, fleet: Fleet) -> None:
        self._fleet = fleet
        self._collector = SpanCollector(endpoint, fleet.settings.collector_headers)
        self._file = fleet.settings.state.span_place
        self.loop = Loop("spans", self._send_next, longest_retry_seconds=60.0)

    def _send_next(self) -> None:
        place = self._place()
        page = feed().after(place, _WAIT_SECONDS, _is_end) if place else feed().now()
        if page.missed:
            log.warning("the spans of some tasks are not sent: the broker does not keep that long what ended")
        found = [self._fleet.records.find(event.id) for event in page.events]
        online = self._fleet.nodes.online() if found else []
        for record in found:
            if record and record.state.ended and self._is_ours(record, online):
                spans = spans_of(record, self._fleet.records.history(record.spec.id))
                self._collector.send(otlp_message(record, spans, self._fleet.settings.node))
        if page.place != place:
            write_private(self._file, SpanPlace(place=page.place).model_dump_json())

    def _is_ours(self, record: TaskRecord, online: list[str]) -> bool:
        own = self._fleet.settings.node
        return record.node == own or (record.node not in online and own == min(online, default=own))

    def _place(self) -> str | None:
        try:
            return SpanPlace.model_validate_json(self._file.read_bytes()).place
        except (OSError, ValueError):
            return None


def _is_end(event: FlowEvent) -> bool:
    return event.kind is FlowKind.TASKS and event.what in ENDED

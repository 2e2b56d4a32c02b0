"""The spans of tasks and messages as a collector of OpenTelemetry's takes them: by OTLP over HTTP, in its JSON.

This is written without OpenTelemetry's SDK: redis-py would load that in every process in which it is installed. What
was asked and answered is not sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from torch_tasks.errors import CollectorAway
from torch_tasks.model import telemetry_names as names
from torch_tasks.model.task import TaskRecord
from torch_tasks.model.trace import Span, SpanKind
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.redaction import redacted

_SECONDS = 10.0
"""How long the collector may take."""
_LONGEST_NOTE = 200
Facts = dict[str, str | int | None]
_INTERNAL, _PRODUCER, _CONSUMER = 1, 4, 5
_KINDS = {SpanKind.TASK: _CONSUMER, SpanKind.MESSAGE: _PRODUCER}
_OK, _ERROR = 1, 2


class SpanCollector:
    """The collector at this address."""

    def __init__(self, endpoint: str, headers: dict[str, str]) -> None:
        self._endpoint = endpoint.rstrip("/")
        import httpx2  # 50 ms, which only a node with a collector needs

        self._errors = httpx2.HTTPError
        self._client = httpx2.Client(timeout=_SECONDS, headers=headers)

    def send(self, message: dict[str, Any]) -> None:
        """Send it spans, or raise :class:`CollectorAway`; what is sent twice is the same spans."""
        try:
            reply = self._client.post(f"{self._endpoint}/v1/traces", json=message)
            why = "" if reply.is_success else f"it answered {reply.status_code} {reply.reason_phrase}"
        except self._errors as error:
            why = str(error) or type(error).__name__
        if why:
            raise CollectorAway(
                f"the collector at {self._endpoint} (TORCH_OTLP_ENDPOINT) did not take spans: {why}; they are sent "
                "when it does"
            )


def otlp_message(record: TaskRecord, spans: Sequence[Span], node: str) -> dict[str, Any]:
    """The spans of a task that has ended, as this node sends them."""
    trace_id, last = TraceParent.of(record.trace, record.spec.id).trace_id, _last_attempt(spans)
    return _message((_written(trace_id, span, _facts(record, span, is_last=span.id == last)) for span in spans), node)


def otlp_message_of_others(trace_id: str, spans: Sequence[Span], node: str) -> dict[str, Any]:
    """The spans of messages, and of fires of check-ins, as this node sends them."""
    return _message((_written(trace_id, span, _facts_of_others(span)) for span in spans), node)


def _message(written: Iterable[dict[str, Any]], node: str) -> dict[str, Any]:
    resource = {"attributes": _attributes({"service.name": names.SERVICE, "service.instance.id": node})}
    scope = {"name": "torch_tasks", "version": version("torch-tasks")}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": list(written)}]}]}


def _last_attempt(spans: Sequence[Span]) -> str | None:
    return next((span.id for span in reversed(spans) if span.kind is SpanKind.ATTEMPT), None)


def _written(trace_id: str, span: Span, facts: Facts) -> dict[str, Any]:
    return {
        "traceId": trace_id,
        "spanId": span.id,
        **({"parentSpanId": span.parent} if span.parent else {}),
        "name": _name(span),
        "kind": _KINDS.get(span.kind, _INTERNAL),
        "startTimeUnixNano": _nanoseconds(span.begin),
        "endTimeUnixNano": _nanoseconds(span.end or span.begin),
        "attributes": _attributes(facts),
        "events": [{"timeUnixNano": _nanoseconds(event.at), "name": event.name} for event in span.events],
        "links": [
            {"traceId": link.trace_id or trace_id, "spanId": link.id, "attributes": _attributes({names.LINK: link.why})}
            for link in span.links
        ],
        "status": _status(span),
    }


def _name(span: Span) -> str:
    match span.kind:
        case SpanKind.TASK:
            return names.TASK
        case SpanKind.ATTEMPT:
            return f"{names.INVOKE_AGENT} {span.agent}"
        case SpanKind.MESSAGE:
            return names.MESSAGE
        case SpanKind.CHECKIN:
            return names.CHECKIN
    return span.name


def _status(span: Span) -> dict[str, Any]:
    if span.failed:
        return {"code": _ERROR, "message": redacted(span.note)[:_LONGEST_NOTE]}
    return {"code": _OK} if span.outcome == "succeeded" else {}


def _facts_of_others(span: Span) -> Facts:
    of_message = span.kind is SpanKind.MESSAGE
    return {
        names.MESSAGE: span.message_id or None,
        names.CHECKIN: span.checkin_id or None,
        names.MESSAGE_KIND: span.name if of_message else None,
        names.SENDER: span.sender,
        names.AGENT: span.agent,
        names.OUTCOME: span.outcome or None,
        names.ERROR: span.outcome if span.failed else None,
    }


def _facts(record: TaskRecord, span: Span, *, is_last: bool) -> Facts:
    result = record.result
    found: Facts = {
        names.TASK: span.task_id,
        names.AGENT: span.agent,
        names.NODE: span.node,
        names.ATTEMPT: span.attempt,
        names.OUTCOME: span.outcome or None,
    }
    if span.kind is SpanKind.TASK:
        spec = record.spec
        found |= {names.ROLE: spec.role, names.PRIORITY: str(spec.priority), names.ATTEMPTS: record.attempts}
    if span.kind is SpanKind.ATTEMPT:
        found |= {names.OPERATION: names.INVOKE_AGENT, names.AGENT_ID: span.agent, names.AGENT_NAME: span.agent}
    if is_last and result and result.usage:
        found |= {names.INPUT_TOKENS: result.usage.input_tokens, names.OUTPUT_TOKENS: result.usage.output_tokens}
    if span.failed and (is_last or span.kind is SpanKind.TASK) and result and result.error:
        found[names.ERROR] = str(result.error.kind)
    return found


def _attributes(values: Facts) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
        if value is not None
    ]


def _nanoseconds(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1_000_000) * 1000)

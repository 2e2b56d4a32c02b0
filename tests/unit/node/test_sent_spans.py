"""A task's spans as a collector of OpenTelemetry's gets them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from collector import attributes, collector, is_otlp

from torch_tasks.errors import CollectorAway
from torch_tasks.model.task import Failure, FailureKind, HistoryEntry, TaskRecord, TaskResult, TaskSpec, TaskStep, Usage
from torch_tasks.model.task import TaskState as S
from torch_tasks.model.trace import spans_of
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.monitoring.otlp_spans import SpanCollector, otlp_message

BEGIN = datetime(2026, 11, 29, 12, tzinfo=UTC)
CALLER = TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
SECRET = "sk-ant-api03-" + "a" * 80


def entry(seconds: int, state: S, **more: object) -> HistoryEntry:
    fields = {"at": BEGIN + timedelta(seconds=seconds), "state": state, "agent": "dev-1", "node": "n", **more}
    return HistoryEntry.model_validate(fields)


HISTORY = [
    entry(1, S.ASSIGNED),
    entry(2, S.RUNNING),
    entry(3, S.QUEUED, step=TaskStep.RETRIED),
    entry(4, S.ASSIGNED),
    entry(5, S.RUNNING),
    entry(6, S.FAILED),
]
RESULT = TaskResult(
    task_id="t",
    status=S.FAILED,
    answer="the answer",
    usage=Usage(input_tokens=10, output_tokens=3),
    error=Failure(kind=FailureKind.CHECK_FAILED, message=f"check failed: {SECRET}"),
)
RECORD = TaskRecord(
    spec=TaskSpec(id="t", prompt="the prompt"), state=S.FAILED, queue="q", created_at=BEGIN, attempts=2,
    finished_at=HISTORY[-1].at, agent="dev-1", node="n", trace=str(CALLER), result=RESULT,
)  # fmt: skip


MESSAGE = otlp_message(RECORD, spans_of(RECORD, HISTORY), "node-a")


def test_what_is_sent_is_otlp() -> None:
    assert is_otlp(MESSAGE)
    assert not is_otlp({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceID": "0"}]}]}]})


def test_a_collector_gets_the_spans_as_they_are_drawn() -> None:
    with collector() as (found, address):
        SpanCollector(address, {"authorization": "Bearer me"}).send(MESSAGE)
    drawn = spans_of(RECORD, HISTORY)
    assert [span["spanId"] for span in found.spans] == [span.id for span in drawn]
    assert {span["traceId"] for span in found.spans} == {CALLER.trace_id}
    assert [span.get("parentSpanId") for span in found.spans] == [span.parent for span in drawn]
    root = found.spans[0]
    assert (int(root["endTimeUnixNano"]) - int(root["startTimeUnixNano"])) / 1e9 == 6
    assert found.authorization == "Bearer me"
    assert found.resources == [{"service.name": "torch", "service.instance.id": "node-a"}]


def test_an_attempt_is_the_invocation_of_an_agent() -> None:
    with collector() as (found, address):
        SpanCollector(address, {"authorization": "Bearer me"}).send(MESSAGE)
    first, second = (span for span in found.spans if span["name"] == "invoke_agent dev-1")
    assert attributes(second) == {
        "torch.task": "t", "torch.agent": "dev-1", "torch.node": "n", "torch.attempt": 2, "torch.outcome": "failed",
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.id": "dev-1", "gen_ai.agent.name": "dev-1",
        "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 3, "error.type": "check_failed",
    }  # fmt: skip
    (link,) = second["links"]
    assert (link["spanId"], attributes(link)) == (first["spanId"], {"torch.link": "retry"})


def test_neither_what_was_asked_nor_what_was_answered_nor_a_secret_is_sent() -> None:
    with collector() as (found, address):
        SpanCollector(address, {"authorization": "Bearer me"}).send(MESSAGE)
    said = str(found.spans)
    assert "check failed" in said
    assert not [text for text in ("the prompt", "the answer", SECRET) if text in said]


def test_a_collector_that_takes_nothing_is_named() -> None:
    with collector() as (found, address):
        found.refuses = True
        with pytest.raises(CollectorAway, match=f"{address}.*it answered 503"):
            SpanCollector(address, {"authorization": "Bearer me"}).send(MESSAGE)
    with pytest.raises(CollectorAway, match="refused"):
        SpanCollector(address, {}).send(MESSAGE)

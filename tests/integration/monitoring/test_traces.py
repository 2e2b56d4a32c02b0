"""One trace of a canvas: what is done for a task, and what it leads to, also if a worker is killed meanwhile."""

from __future__ import annotations

import pytest
from celery import chain, group
from nodes import Node
from waiting import until

from torch_tasks import TaskSpec, TaskState, Torch
from torch_tasks.model.trace import SpanKind
from torch_tasks.model.traceparent import TraceParent, span_id
from torch_tasks.tasks.run import run

CALLER = TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def spec(name: str, prompt: str) -> TaskSpec:
    return TaskSpec(id=name, prompt=prompt, role="developer")


def ended(torch: Torch) -> set[str]:
    return {record.spec.id for record in torch.tasks(states=[TaskState.SUCCEEDED])}


def test_a_canvas_whose_worker_was_killed_is_one_trace_under_its_callers_span(
    torch: Torch, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = node.agent_worker("developer-1")
    monkeypatch.setenv("TRACEPARENT", str(CALLER))
    enqueues = "torch-tasks run --id inner --role developer true"
    chain(
        run.si(spec("first", 'sleep 2; echo "$TRACEPARENT"')),
        group(run.si(spec("left", enqueues)), run.si(spec("right", "true"))),
    ).delay()
    until(lambda: torch.task("first").record().state is TaskState.RUNNING, "the first task runs")
    worker.kill()
    node.agent_worker("developer-1")
    names = {"first", "left", "right", "inner"}
    until(lambda: ended(torch) == names, "all of the canvas has ended", 30)
    assert torch.task("first").result(0).answer == f"{CALLER.under('first')}\n"

    trace = torch.task("right").trace()
    assert trace.trace_id == CALLER.trace_id
    above = {span.task_id: span.parent for span in trace.spans if span.kind is SpanKind.TASK}
    first = span_id("first")
    assert above == {"first": CALLER.span_id, "left": first, "right": first, "inner": span_id("left")}
    of_first = [span for span in trace.spans if span.task_id == "first"]
    assert [span.outcome for span in of_first if span.kind is SpanKind.ATTEMPT] == ["succeeded"]
    assert "adopted" in [event.name for span in of_first for event in span.events]

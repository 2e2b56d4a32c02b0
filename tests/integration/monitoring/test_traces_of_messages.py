"""One trace through questions, replies and check-ins, as the command draws it and as a collector gets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from collector import KeptSpans, attributes, collector
from machine import Machine
from waiting import until

from torch_tasks.model.traceparent import TraceParent, span_id

CALLER = TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
ASKS = """
torch-tasks ask qa-1 --timeout 60 'torch-tasks reply pong'
torch-tasks checkin add 'in 1h' 'look at the build' --id own
"""


@pytest.fixture(scope="module")
def collected() -> Iterator[tuple[Machine, KeptSpans]]:
    """A stack of two shells that sends its spans to a collector."""
    with collector() as (found, address):
        machine = Machine(TORCH_OTLP_ENDPOINT=address)
        machine.torch("up", "--detach", "--no-flower", "--agent", "dev-1:developer", "--agent", "qa-1:qa")
        yield machine, found
        machine.close()


def spans_in(machine: Machine, task_id: str) -> list[dict[str, Any]]:
    found = machine.torch("trace", task_id, "--json").stdout
    return list(json.loads(found)["spans"])


def only(spans: list[dict[str, Any]], **fields: str) -> dict[str, Any]:
    (found,) = (one for one in spans if fields.items() <= one.items())
    return found


def test_what_an_agent_asks_and_is_answered_is_of_its_tasks_trace(collected: tuple[Machine, KeptSpans]) -> None:
    machine, found = collected
    asks = ("run", "--wait", "--wait-timeout", "60", "--id", "asks", "--agent", "dev-1", ASKS)
    assert "pong" in machine.torch(*asks, TRACEPARENT=str(CALLER)).stdout

    spans = spans_in(machine, "asks")
    question, reply = only(spans, kind="message", name="question"), only(spans, kind="message", name="reply")
    assert (question["parent"], reply["parent"]) == (span_id("asks"), question["id"])
    assert (question["sender"], question["agent"], reply["sender"]) == ("dev-1", "qa-1", "qa-1")
    answer = only(spans, name="answer")
    assert (answer["parent"], answer["agent"], answer["end"] > answer["begin"]) == (question["id"], "qa-1", True)
    assert reply["links"] == [{"id": question["id"], "why": "reply", "trace_id": CALLER.trace_id}]
    drawn = machine.torch("trace", "asks").stdout
    assert "question dev-1 to qa-1 read" in drawn
    assert "answer by qa-1" in drawn
    own = json.loads(machine.torch("checkin", "show", "own", "--json").stdout)
    assert own["checkin"]["traceparent"] == str(CALLER.under("asks"))

    got = sent(found, question, reply, answer)
    assert got[question["id"]]["name"] == "torch.message"
    assert attributes(got[question["id"]])["torch.sender"] == "dev-1"
    assert {one["traceId"] for one in got.values()} == {CALLER.trace_id}
    assert "pong" not in str(found.spans)


def test_a_fire_is_a_trace_of_its_own_linked_with_who_scheduled_it(collected: tuple[Machine, KeptSpans]) -> None:
    machine, found = collected
    note = "torch-tasks send qa-1 true"
    machine.torch(
        "checkin", "add", "in 1s", note, "--id", "again", "--task", "--agent", "dev-1", TRACEPARENT=str(CALLER)
    )

    def task() -> str | None:
        history = json.loads(machine.torch("checkin", "history", "again", "--json").stdout)
        return next((str(one["task"]) for one in history if one["task_state"] == "succeeded"), None)

    spans = spans_in(machine, until(task, "the task of the check-in has ended", 60))
    fire = only(spans, kind="checkin")
    assert (fire["checkin_id"], fire["sender"]) == ("again", "operator")
    assert fire["links"] == [{"id": CALLER.span_id, "why": "scheduled", "trace_id": CALLER.trace_id}]
    begun, message = only(spans, kind="task"), only(spans, kind="message")
    assert (begun["parent"], message["parent"]) == (fire["id"], begun["id"])

    got = sent(found, fire, begun, message)
    assert got[fire["id"]]["name"] == "torch.checkin"
    assert got[fire["id"]]["links"][0]["traceId"] == CALLER.trace_id
    assert {one["traceId"] for one in got.values()} != {CALLER.trace_id}


def sent(found: KeptSpans, *wanted: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """These spans as the collector got them."""
    ids = {span["id"] for span in wanted}
    until(lambda: ids <= {span["spanId"] for span in found.spans}, "the collector has them", 60)
    return {span["spanId"]: span for span in found.spans if span["spanId"] in ids}

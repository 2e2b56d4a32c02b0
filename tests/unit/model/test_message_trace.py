"""What became of messages and fires as spans, and what counts as a place in a trace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from torch_tasks.model.checkin import At, Checkin, Fire, SlotOutcome, Target, derived_id, fire_span
from torch_tasks.model.message import Message, MessageKind, MessageRecord, MessageState
from torch_tasks.model.message_trace import spans_of_fire, spans_of_message
from torch_tasks.model.trace import Span
from torch_tasks.model.traceparent import TraceParent, message_span, span_id

BEGIN = datetime(2026, 11, 29, 12, tzinfo=UTC)
CALLER = TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
S = MessageState


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def record(state: MessageState, message_id: str = "m", **fields: object) -> MessageRecord:
    names = {"kind", "reply_to", "sender", "target", "traceparent"}
    said = {name: fields.pop(name) for name in names & fields.keys()}
    wrote = {"sender": "dev-1", "target": "qa-1", "traceparent": str(CALLER), **said}
    message = Message.build(id=message_id, message="how?", timestamp=BEGIN.timestamp(), **wrote)
    moments = {name: at(value) if isinstance(value, float) else value for name, value in fields.items()}
    return MessageRecord.model_validate({"message": message, "state": state, **moments})


def drawn(spans: list[Span]) -> list[tuple[str, float, float | None]]:
    """Name, begin and end of each span."""
    return [
        (one.name, (one.begin - BEGIN).total_seconds(), one.end and (one.end - BEGIN).total_seconds()) for one in spans
    ]


DELIVERED = record(
    S.ACKNOWLEDGED, accepted_at=1.0, staged_at=3.0, delivered_at=4.0, acknowledged_at=4.5, settled_at=4.5
)  # fmt: skip


def test_a_message_is_sent_waits_and_is_delivered_under_its_senders_span() -> None:
    spans = spans_of_message(DELIVERED)
    assert drawn(spans) == [("text", 0, 4), ("sending", 0, 1), ("inbox", 1, 3), ("delivery", 3, 4)]
    assert [one.parent for one in spans] == [CALLER.span_id, *[message_span("m")] * 3]
    assert (spans[0].sender, spans[0].agent, spans[0].outcome) == ("dev-1", "qa-1", "acknowledged")


def test_what_waits_has_no_end_and_what_was_given_up_has_failed() -> None:
    assert drawn(spans_of_message(record(S.ACCEPTED, accepted_at=1.0)))[-1] == ("inbox", 1, None)
    dead = record(S.DEAD, accepted_at=1.0, staged_at=2.0, settled_at=9.0, note="it was refused")
    assert drawn(spans_of_message(dead))[0] == ("text", 0, 9)
    assert (spans_of_message(dead)[0].failed, spans_of_message(dead)[0].note) == (True, "it was refused")


def test_what_went_past_the_broker_was_delivered_before_the_broker_knew_it() -> None:
    past = record(S.ACKNOWLEDGED, transport="fallback", accepted_at=60.0, delivered_at=2.0, acknowledged_at=60.0)
    assert drawn(spans_of_message(past)) == [("text", 0, 2), ("fallback", 0, 2)]


def test_a_reply_says_who_answered_and_how_long_that_took_and_is_linked_with_the_question() -> None:
    question = record(S.READ, "q", kind=MessageKind.QUESTION, accepted_at=1.0, delivered_at=2.0, read_at=7.0)
    answer = record(
        S.READ, "r", kind=MessageKind.REPLY, reply_to="q", sender="qa-1", target="dev-1",
        traceparent=question.message.span, accepted_at=7.0, read_at=8.0,
    )  # fmt: skip
    wait, reply, *_ = spans_of_message(answer, question)
    assert drawn([wait, reply]) == [("answer", 2, 7), ("reply", 0, 8)]
    assert (wait.agent, wait.sender, wait.parent) == ("qa-1", "dev-1", message_span("q"))
    assert reply.parent == message_span("q")
    assert [(link.id, link.why, link.trace_id) for link in reply.links] == [
        (message_span("q"), "reply", CALLER.trace_id)
    ]


def test_a_message_outside_of_any_trace_has_no_spans_and_says_the_same_as_before_there_were_traces() -> None:
    plain = Message.build(sender="a", target="b", message="hello")
    assert spans_of_message(MessageRecord(message=plain, state=S.ACCEPTED)) == []
    assert plain.span is None
    assert "traceparent" not in plain.signed_text()
    assert "traceparent" in DELIVERED.message.signed_text()


@pytest.mark.parametrize("hostile", ["x" * 100_000, 7, "00-" + "0" * 32 + "-b7ad6b7169203331-01", "", "\0", [1]])
def test_what_is_no_traceparent_is_dropped(hostile: object) -> None:
    assert Message.build(sender="a", target="b", message="hello", traceparent=hostile).traceparent is None


def test_only_the_place_of_a_traceparent_is_kept() -> None:
    kept = Message.build(sender="a", target="b", message="hello", traceparent=f"{CALLER}-{'x' * 100_000}").traceparent
    assert kept == str(CALLER)


def test_a_fire_begins_a_trace_of_its_own_and_is_linked_with_the_one_that_scheduled_it() -> None:
    checkin = Checkin.build(
        id="c", note="look", target=Target(agent="qa-1"), schedule=At(at=BEGIN), sender="dev-1", traceparent=str(CALLER)
    )
    fire = Fire(checkin_id="c", slot=BEGIN, outcome=SlotOutcome.SENT, at=at(3), late=2.0)
    spans = spans_of_fire(checkin, fire)
    celery_id = derived_id("c", BEGIN)
    assert drawn(spans) == [("check-in c", 0, 3), ("late", 0, 2), ("delivery", 2, 3)]
    assert fire_span(celery_id) == TraceParent.new(celery_id).under(celery_id)
    assert (spans[0].id, spans[0].parent) == (span_id(celery_id), None)
    assert [(link.id, link.why, link.trace_id) for link in spans[0].links] == [
        (CALLER.span_id, "scheduled", CALLER.trace_id)
    ]

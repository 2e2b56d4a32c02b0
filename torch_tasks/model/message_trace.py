"""What became of a message, and of one fire of a check-in, as spans of time, drawn from their records alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

from torch_tasks.model.checkin import Checkin, Fire, derived_id, fire_span
from torch_tasks.model.message import MessageRecord, MessageState
from torch_tasks.model.trace import Span, SpanKind, SpanLink
from torch_tasks.model.traceparent import TraceParent, message_span, span_id


class MessagePhase(StrEnum):
    """What a message, or a fire, is in."""

    SENDING = "sending"
    """It is on its way into the receiver's inbox: for a moment, or on its sender's disk until the broker is back."""
    INBOX = "inbox"
    """Its receiver is busy, or away."""
    DELIVERY = "delivery"
    """It is put into the pane, until the program shows that it has it; or a fire is brought to its receivers."""
    FALLBACK = "fallback"
    """It goes from its sender's machine into the pane, past a broker that is away."""
    ANSWER = "answer"
    """The receiver of a question has it, and has not answered."""
    LATE = "late"
    """A fire was due, and no beat had published it."""


def spans_of_message(record: MessageRecord, answered: MessageRecord | None = None) -> list[Span]:
    """The spans of a message of a trace: its own, then its parts; of a reply also the wait for it.

    ``answered`` is the message to which it replies. Its sending begins by its sender's clock.
    """
    message = record.message
    place = TraceParent.read(message.traceparent)
    if place is None:
        return []
    moments = _Moments(record)
    root = Span(
        id=message_span(message.id),
        parent=place.parent,
        message_id=message.id,
        kind=SpanKind.MESSAGE,
        name=str(message.kind),
        begin=moments.begin,
        end=moments.end,
        sender=message.sender,
        agent=message.target,
        outcome=str(record.state) if moments.end else "",
        failed=record.state in (MessageState.DEAD, MessageState.EXPIRED),
        note=record.note,
        links=_reply_link(answered),
    )
    parts = [_part(root, *phase) for phase in moments.phases()]
    return [*_answer(record, answered), root, *parts]


class _Moments:
    """When a message was where."""

    def __init__(self, record: MessageRecord) -> None:
        self._record = record
        sent = datetime.fromtimestamp(record.message.timestamp, UTC)
        self._is_fallback = record.transport == "fallback"
        self._arrived = record.delivered_at or record.read_at
        accepted = record.accepted_at or sent
        self._accepted = min(accepted, self._arrived or accepted) if self._is_fallback else accepted
        self.begin = min(sent, self._accepted)
        self.end = self._arrived or record.settled_at or (record.expires_at if self._is_over else None)

    @property
    def _is_over(self) -> bool:
        return self._record.state is MessageState.EXPIRED

    def phases(self) -> list[tuple[MessagePhase, datetime, datetime | None]]:
        """Its phases, each with its begin, and its end if it is over."""
        if self._is_fallback:
            return [(MessagePhase.FALLBACK, self.begin, self.end)]
        staged = self._record.staged_at
        found: list[tuple[MessagePhase, datetime, datetime | None]] = [
            (MessagePhase.SENDING, self.begin, self._accepted),
            (MessagePhase.INBOX, self._accepted, staged or self.end),
        ]
        return [*found, (MessagePhase.DELIVERY, staged, self.end)] if staged else found


def _answer(record: MessageRecord, answered: MessageRecord | None) -> list[Span]:
    """How long the one who asked waited for this reply, from when the receiver had the question."""
    if answered is None or answered.message.traceparent is None or record.accepted_at is None:
        return []
    asked = answered.message
    begin = answered.delivered_at or answered.read_at or answered.accepted_at or record.accepted_at
    return [
        Span(
            id=span_id("answer", record.message.id),
            parent=message_span(asked.id),
            message_id=asked.id,
            kind=SpanKind.PHASE,
            name=str(MessagePhase.ANSWER),
            begin=min(begin, record.accepted_at),
            end=record.accepted_at,
            sender=asked.sender,
            agent=record.message.sender,
        )
    ]


def _reply_link(answered: MessageRecord | None) -> tuple[SpanLink, ...]:
    place = TraceParent.read(answered.message.traceparent) if answered else None
    if answered is None or place is None:
        return ()
    return (SpanLink(id=message_span(answered.message.id), why="reply", trace_id=place.trace_id),)


def spans_of_fire(checkin: Checkin, fire: Fire) -> list[Span]:
    """The spans of a fire that has led to something: its own, how late it was, and how long its delivery took."""
    celery_id = derived_id(checkin.id, fire.slot)
    begin = min(checkin.due(fire.slot), fire.at)
    published = min(begin + timedelta(seconds=fire.late), fire.at)
    root = Span(
        id=fire_span(celery_id).span_id,
        parent=None,
        checkin_id=checkin.id,
        kind=SpanKind.CHECKIN,
        name=f"check-in {checkin.id}",
        begin=begin,
        end=fire.at,
        sender=checkin.sender,
        agent=checkin.target.receiver,
        outcome=str(fire.outcome),
        note=fire.note,
        links=_scheduled_in(checkin),
    )
    return [
        root,
        _part(root, MessagePhase.LATE, begin, published),
        _part(root, MessagePhase.DELIVERY, published, fire.at),
    ]


def _scheduled_in(checkin: Checkin) -> tuple[SpanLink, ...]:
    place = TraceParent.read(checkin.traceparent)
    if place is None or place.parent is None:
        return ()
    return (SpanLink(id=place.parent, why="scheduled", trace_id=place.trace_id),)


def _part(above: Span, phase: MessagePhase, begin: datetime, end: datetime | None) -> Span:
    waits = phase in (MessagePhase.INBOX, MessagePhase.LATE)
    return Span(
        id=span_id(above.id, phase),
        parent=above.id,
        message_id=above.message_id,
        checkin_id=above.checkin_id,
        kind=SpanKind.WAIT if waits else SpanKind.PHASE,
        name=str(phase),
        begin=begin,
        end=end,
        agent=above.agent,
    )

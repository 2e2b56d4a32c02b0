"""What became of a task as spans of time, drawn from its record and its history alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import AwareDatetime

from torch_tasks.model.fields import KeptText, Model
from torch_tasks.model.task import HistoryEntry, TaskRecord, TaskState, TaskStep
from torch_tasks.model.traceparent import TraceParent, span_id


class SpanKind(StrEnum):
    TASK = "task"
    """From its acceptance to its end."""
    WAIT = "wait"
    """No agent has it."""
    ATTEMPT = "attempt"
    """One agent has it."""
    PHASE = "phase"
    """A part of an attempt, or of a message's way."""
    MESSAGE = "message"
    """From when it was sent until it was known what became of it."""
    CHECKIN = "checkin"
    """One fire of a check-in: from when it was due until it had led to something."""


class Phase(StrEnum):
    """What a task is in, from one moment to the next."""

    PENDING = "pending"
    QUEUED = "queued"
    PARKED = "parked"
    PREPARATION = "preparation"
    """The agent has it, and gets ready: a free input line, a new program."""
    STAGING = "staging"
    """Its git tree is made, and its prompt is being pasted."""
    SUBMISSION = "submission"
    """The prompt is in the input line, and Enter is being pressed."""
    ACCEPTANCE = "acceptance"
    """Nothing shows yet that the program works on it."""
    TURN = "turn"
    """The program works on it."""
    WAITING = "waiting"
    """A person or an answer is waited for."""
    CHECK = "check"
    """The check command runs."""


class SpanEvent(Model):
    at: AwareDatetime
    name: str
    note: KeptText = ""


class SpanLink(Model):
    """What led to it beside the span above: an earlier attempt, the message that a reply answers, …"""

    id: str
    why: str
    trace_id: str | None = None
    """The trace of that span; None if it is the same."""


class Span(Model):
    id: str
    parent: str | None
    task_id: str = ""
    """Empty for what belongs to a message or a check-in."""
    message_id: str = ""
    checkin_id: str = ""
    kind: SpanKind
    name: str
    begin: AwareDatetime
    end: AwareDatetime | None = None
    """None while it goes on."""
    sender: str | None = None
    """Of a message: who sent it."""
    agent: str | None = None
    """Whose work it is; of a message, who gets it."""
    node: str | None = None
    attempt: int | None = None
    outcome: str = ""
    """How a task or an attempt ended, or what became of a message."""
    failed: bool = False
    note: KeptText = ""
    """Why it ended so."""
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()


class Trace(Model):
    """All tasks and messages of one trace, as far as they are known."""

    trace_id: str
    spans: tuple[Span, ...]
    """Task after task, then message after message, in the order in which they were accepted; each before its parts."""
    left_out: int = 0
    """How many more tasks and messages belong to it."""


def as_tree(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Each span after how deep it is, before those under it; those beside each other as they began."""
    known = {span.id for span in spans}
    under: dict[str | None, list[Span]] = {}
    for span in sorted(spans, key=lambda one: one.begin):
        under.setdefault(span.parent if span.parent in known else None, []).append(span)

    def all_under(parent: str | None, depth: int) -> Iterator[tuple[int, Span]]:
        for span in under.get(parent, ()):
            yield depth, span
            yield from all_under(span.id, depth + 1)

    return list(all_under(None, 0))


_OF_STEP = {
    TaskStep.STAGED: Phase.SUBMISSION,
    TaskStep.SUBMITTED: Phase.ACCEPTANCE,
    TaskStep.ACCEPTED: Phase.TURN,
    TaskStep.CHECKING: Phase.CHECK,
    TaskStep.SENT_BACK: Phase.STAGING,
}
_OF_STATE = {
    TaskState.PENDING: Phase.PENDING,
    TaskState.QUEUED: Phase.QUEUED,
    TaskState.PARKED: Phase.PARKED,
    TaskState.ASSIGNED: Phase.PREPARATION,
}
_WAITS = frozenset({Phase.PENDING, Phase.QUEUED, Phase.PARKED})
_BY_TYPING = frozenset({TaskStep.STAGED, TaskStep.SUBMITTED, TaskStep.ACCEPTED})
_WHY_AGAIN = {
    TaskStep.TAKEN_OVER: "takeover",
    TaskStep.HANDED_OVER: "handoff",
    TaskStep.RETRIED: "retry",
}


def spans_of(record: TaskRecord, history: Sequence[HistoryEntry]) -> list[Span]:
    """The task's spans: the task itself, then its waits and attempts, each attempt before its phases."""
    parts = _parts(record, list(history) or _by_moments(record))
    last = parts[-1] if parts else None
    result = record.result
    root = Span(
        id=span_id(record.spec.id),
        parent=TraceParent.of(record.trace, record.spec.id).parent,
        task_id=record.spec.id,
        kind=SpanKind.TASK,
        name=record.spec.title,
        begin=record.created_at,
        end=record.finished_at if record.state.ended else None,
        agent=record.agent,
        node=record.node,
        outcome=str(record.state) if record.state.ended else "",
        failed=record.state in (TaskState.FAILED, TaskState.DEAD),
        note=result.error.message if result and result.error else (last.note if last and record.state.ended else ""),
    )
    return [root, *_children(record, root, parts)]


# ── from entries to phases ───────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _InPhase:
    """A time in which the task is in one phase, of one attempt or of none."""

    phase: Phase
    attempt: int
    """Counted in the history, from 1; 0 before the first."""
    begin: datetime
    end: datetime | None = None
    agent: str | None = None
    node: str | None = None
    again: TaskStep | None = None
    """Why there is another attempt than the one before."""
    outcome: str = ""
    """The state in which the task left its agent."""
    note: str = ""
    events: list[SpanEvent] = field(default_factory=list)


def _parts(record: TaskRecord, history: list[HistoryEntry]) -> list[_InPhase]:
    first = Phase.PENDING if record.spec.after else Phase.QUEUED
    parts = [_InPhase(first, 0, record.created_at)]
    typed: set[int] = set()
    again: TaskStep | None = None
    attempts = 0
    for entry in history:
        before = parts[-1]
        again = entry.step if entry.step in _WHY_AGAIN else again
        begins_attempt = entry.state is TaskState.ASSIGNED and entry.step is not TaskStep.ADOPTED
        phase = _next(parts, entry)
        event = SpanEvent(at=entry.at, name=str(entry.step or entry.state), note=entry.note or "")
        if phase is before.phase and not begins_attempt:
            before.events.append(event)
            continue
        if entry.step in _BY_TYPING:
            typed.add(before.attempt)
        before.end = before.end or entry.at
        if phase is None or phase in _WAITS:
            before.outcome, before.note = str(entry.state), entry.note or ""
        if phase is None:
            continue
        attempts += begins_attempt
        number = 0 if phase in _WAITS else attempts
        part = _InPhase(phase, number, entry.at, agent=entry.agent, node=entry.node, events=[event])
        if begins_attempt:
            part.again, again = again, None
        parts.append(part)
    if record.state.ended and parts[-1].end is None:
        parts[-1].end = record.finished_at
    for part in parts:
        if part.phase is Phase.STAGING and part.attempt not in typed:
            part.phase = Phase.TURN  # a program that gets no prompt typed, such as a shell
    return parts


def _next(parts: list[_InPhase], entry: HistoryEntry) -> Phase | None:
    """The phase that the task is in after this entry; None if it has ended."""
    now, state, step = parts[-1].phase, entry.state, entry.step
    if state.ended:
        return None
    if step in _OF_STEP:
        return _OF_STEP[step]
    if step in (TaskStep.ADOPTED, TaskStep.HANDED_OVER):
        return now
    if state is TaskState.WAITING:
        return Phase.WAITING
    if state in _OF_STATE:
        return _OF_STATE[state]
    if now is Phase.WAITING:
        now = next((one.phase for one in reversed(parts) if one.phase is not Phase.WAITING), Phase.TURN)
    return Phase.STAGING if now in (_WAITS | {Phase.PREPARATION}) else now


def _by_moments(record: TaskRecord) -> list[HistoryEntry]:
    """The little that the record itself says, of a task whose history a broker forgot."""
    moments = (
        (record.assigned_at, TaskState.ASSIGNED),
        (record.started_at, TaskState.RUNNING),
        (record.finished_at if record.state.ended else None, record.state),
    )
    return [HistoryEntry(at=at, state=state, agent=record.agent, node=record.node) for at, state in moments if at]


# ── from phases to spans ─────────────────────────────────────────────────────────────────────────────────────────


def _children(record: TaskRecord, root: Span, parts: Iterable[_InPhase]) -> list[Span]:
    spans: list[Span] = []
    task_id = record.spec.id
    groups = _grouped(parts)
    dropped = record.attempts - max((group[0].attempt for group in groups), default=0)  # what the history lost
    before: Span | None = None
    for group in groups:
        first, last = group[0], group[-1]
        if first.phase in _WAITS:
            spans.append(_span(root, first))
            continue
        number = first.attempt + max(dropped, 0)
        links = (SpanLink(id=before.id, why=_why(first, before)),) if before else ()
        attempt = Span(
            id=span_id(task_id, "attempt", number),
            parent=root.id,
            task_id=task_id,
            kind=SpanKind.ATTEMPT,
            name=f"attempt {number}",
            begin=first.begin,
            end=last.end,
            agent=first.agent,
            node=first.node,
            attempt=number,
            outcome=last.outcome,
            failed=last.outcome in (TaskState.FAILED, TaskState.DEAD),
            note=last.note,
            links=links,
        )
        spans += [attempt, *(_span(attempt, part) for part in group)]
        before = attempt
    return spans


def _why(first: _InPhase, before: Span) -> str:
    return _WHY_AGAIN[first.again] if first.again else before.outcome or "again"


def _grouped(parts: Iterable[_InPhase]) -> list[list[_InPhase]]:
    """The parts of one attempt together; each wait alone."""
    groups: list[list[_InPhase]] = []
    for part in parts:
        if groups and part.attempt and groups[-1][0].attempt == part.attempt:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _span(above: Span, part: _InPhase) -> Span:
    return Span(
        id=span_id(above.id, part.phase, part.begin.isoformat()),
        parent=above.id,
        task_id=above.task_id,
        kind=SpanKind.WAIT if part.phase in _WAITS else SpanKind.PHASE,
        name=str(part.phase),
        begin=part.begin,
        end=part.end,
        agent=part.agent,
        node=part.node,
        attempt=above.attempt,
        events=tuple(part.events),
    )

"""How a task spent its time, as spans drawn from its record and its history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from torch_tasks.model.task import Failure, FailureKind, HistoryEntry, TaskRecord, TaskResult, TaskSpec, TaskState
from torch_tasks.model.task import TaskStep as Step
from torch_tasks.model.trace import Span, SpanKind, spans_of
from torch_tasks.model.traceparent import TraceParent

BEGIN = datetime(2026, 11, 29, 12, tzinfo=UTC)
S = TaskState


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def entry(seconds: float, state: TaskState, step: Step | None = None, note: str = "", agent: str = "a") -> HistoryEntry:
    by = {} if state in (S.QUEUED, S.PENDING) else {"agent": agent, "node": "n", "incarnation": 1}
    return HistoryEntry(at=at(seconds), state=state, step=step, note=note or None, **by)


def record(
    history: list[HistoryEntry], *, after: tuple[str, ...] = (), attempts: int = 1, **more: object
) -> TaskRecord:
    state = history[-1].state if history else S.QUEUED
    fields: dict[str, object] = {"finished_at": history[-1].at} if state.ended else {}
    spec = TaskSpec(id="t", prompt="do it", after=after)
    return TaskRecord.model_validate(
        {"spec": spec, "state": state, "queue": "q", "created_at": BEGIN, "attempts": attempts, **fields, **more}
    )


def drawn(history: list[HistoryEntry], **more: object) -> list[tuple[str, str, float | None, float | None]]:
    """Kind, name, begin and end of each span."""
    spans = spans_of(record(history, **more), history)  # type: ignore[arg-type]
    return [(str(one.kind), one.name, _seconds(one.begin), _seconds(one.end)) for one in spans]


def _seconds(moment: datetime | None) -> float | None:
    return (moment - BEGIN).total_seconds() if moment else None


CODING = [
    entry(1, S.ASSIGNED),
    entry(2, S.RUNNING),
    entry(3, S.RUNNING, Step.STAGED, "staged: seen"),
    entry(4, S.RUNNING, Step.SUBMITTED),
    entry(5, S.RUNNING, Step.ACCEPTED),
    entry(6, S.WAITING, note="may I?"),
    entry(8, S.RUNNING),
    entry(9, S.RUNNING, note="progress: half"),
    entry(10, S.RUNNING, Step.CHECKING),
    entry(12, S.SUCCEEDED),
]


def test_an_attempt_consists_of_what_was_noted_of_it() -> None:
    assert drawn(CODING) == [
        ("task", "do it", 0, 12),
        ("wait", "queued", 0, 1),
        ("attempt", "attempt 1", 1, 12),
        ("phase", "preparation", 1, 2),
        ("phase", "staging", 2, 3),
        ("phase", "submission", 3, 4),
        ("phase", "acceptance", 4, 5),
        ("phase", "turn", 5, 6),
        ("phase", "waiting", 6, 8),
        ("phase", "turn", 8, 10),
        ("phase", "check", 10, 12),
    ]


def test_what_is_noted_within_a_phase_is_an_event_of_it() -> None:
    spans = spans_of(record(CODING), CODING)
    turn = [one for one in spans if one.name == "turn"][-1]
    assert [(one.name, one.note) for one in turn.events] == [("running", ""), ("running", "progress: half")]


def test_a_program_that_gets_no_prompt_typed_has_a_turn_from_its_beginning() -> None:
    history = [entry(1, S.ASSIGNED), entry(2, S.RUNNING), entry(5, S.SUCCEEDED)]
    assert drawn(history)[3:] == [("phase", "preparation", 1, 2), ("phase", "turn", 2, 5)]


def test_a_task_that_goes_on_has_spans_without_an_end() -> None:
    history = [entry(1, S.ASSIGNED), entry(2, S.RUNNING)]
    assert [one for one in drawn(history) if one[3] is None] == [
        ("task", "do it", 0, None),
        ("attempt", "attempt 1", 1, None),
        ("phase", "turn", 2, None),
    ]


def test_a_task_that_waits_for_others_is_pending_first() -> None:
    history = [entry(3, S.QUEUED, note="what it waited for has succeeded"), entry(4, S.ASSIGNED)]
    assert drawn(history, after=("other",))[1:3] == [("wait", "pending", 0, 3), ("wait", "queued", 3, 4)]


def test_an_adopted_attempt_is_the_same_attempt() -> None:
    adopted = entry(3, S.RUNNING, Step.ADOPTED, "adopted by the agent's next worker")
    history = [entry(1, S.ASSIGNED), entry(2, S.RUNNING), adopted, entry(4, S.RUNNING), entry(5, S.SUCCEEDED)]
    spans = spans_of(record(history), history)
    assert [one.name for one in spans if one.kind is SpanKind.ATTEMPT] == ["attempt 1"]
    assert "adopted" in [event.name for event in spans[-1].events]


AGAIN = {
    "retry": [entry(3, S.QUEUED, Step.RETRIED, "agent crashed"), entry(4, S.ASSIGNED)],
    "takeover": [entry(4, S.ASSIGNED, Step.TAKEN_OVER, "taken over from a on n", agent="b")],
    "handoff": [entry(3, S.RUNNING, Step.HANDED_OVER), entry(3.5, S.QUEUED), entry(4, S.ASSIGNED, agent="b")],
    "parked": [entry(3, S.PARKED, note="the account rests"), entry(4, S.ASSIGNED)],
}


@pytest.mark.parametrize("why", AGAIN)
def test_a_further_attempt_is_linked_with_the_one_before_and_says_why(why: str) -> None:
    history = [entry(1, S.ASSIGNED), entry(2, S.RUNNING), *AGAIN[why], entry(5, S.RUNNING), entry(6, S.SUCCEEDED)]
    first, second = _attempts(history, attempts=2)
    assert (first.attempt, second.attempt) == (1, 2)
    assert [(link.id, link.why) for link in second.links] == [(first.id, why)]
    assert first.end is not None
    assert first.end <= second.begin == at(4)


def test_attempts_keep_their_numbers_and_ids_when_the_history_has_lost_its_beginning() -> None:
    history = [entry(1, S.ASSIGNED), entry(2, S.QUEUED, Step.RETRIED), entry(3, S.ASSIGNED), entry(4, S.SUCCEEDED)]
    whole, cut = _attempts(history, attempts=2), _attempts(history[2:], attempts=2)
    assert (cut[-1].attempt, cut[-1].id) == (2, whole[-1].id)


def test_a_failure_is_said_at_the_task_and_at_its_attempt() -> None:
    failure = Failure(kind=FailureKind.EXIT_CODE, message="exit code 3")
    history = [entry(1, S.ASSIGNED), entry(2, S.RUNNING), entry(3, S.FAILED, note="exit code 3")]
    result = TaskResult(task_id="t", status=S.FAILED, error=failure)
    spans = spans_of(record(history, result=result), history)
    told = {str(one.kind): (one.outcome, one.failed, one.note) for one in spans if one.outcome}
    assert told == {"task": ("failed", True, "exit code 3"), "attempt": ("failed", True, "exit code 3")}


def test_a_replayed_task_goes_on_after_its_end() -> None:
    history = [entry(1, S.ASSIGNED), entry(2, S.DEAD), entry(5, S.QUEUED, note="replayed"), entry(6, S.ASSIGNED)]
    assert [one for one in drawn(history, attempts=2) if one[0] != "phase"] == [
        ("task", "do it", 0, None),
        ("wait", "queued", 0, 1),
        ("attempt", "attempt 1", 1, 2),
        ("wait", "queued", 5, 6),
        ("attempt", "attempt 2", 6, None),
    ]


def test_without_a_history_the_record_says_the_little_it_knows() -> None:
    known = {"state": S.SUCCEEDED, "assigned_at": at(1), "started_at": at(2), "finished_at": at(3), "agent": "a"}
    spans = spans_of(record([], **known), [])
    assert [(one.name, _seconds(one.begin), _seconds(one.end)) for one in spans][2:] == [
        ("attempt 1", 1, 3),
        ("preparation", 1, 2),
        ("turn", 2, 3),
    ]


def test_every_span_lies_under_another_one_of_its_task_or_under_its_callers() -> None:
    spans = spans_of(record(CODING, trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01"), CODING)
    ids = {one.id for one in spans}
    assert len(ids) == len(spans)
    assert spans[0].parent == "b" * 16
    assert {one.parent for one in spans[1:]} <= ids


def _attempts(history: list[HistoryEntry], **more: object) -> list[Span]:
    spans = spans_of(record(history, **more), history)  # type: ignore[arg-type]
    return [one for one in spans if one.kind is SpanKind.ATTEMPT]


# ── traceparent ──────────────────────────────────────────────────────────────────────────────────────────────────

GOOD = f"00-{'0af7651916cd43dd8448eb211c80319c'}-{'b7ad6b7169203331'}-01"


def test_a_traceparent_is_read_and_written() -> None:
    read = TraceParent.read(GOOD)
    assert read == TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert str(read) == GOOD


@pytest.mark.parametrize(
    "text", [None, 1, "", "x", GOOD.upper(), GOOD + "\n", "ff" + GOOD[2:], GOOD.replace("b7ad6b7169203331", "0" * 16)]
)
def test_what_is_none_is_not_read(text: object) -> None:
    assert TraceParent.read(text) is None


def test_what_begins_a_trace_has_no_parent_and_what_is_within_a_task_has_the_task() -> None:
    first = TraceParent.new("t")
    assert first.parent is None
    assert first == TraceParent.of("nonsense", "t")
    within = first.under("t")
    history = [entry(1, S.ASSIGNED)]
    assert within.parent == spans_of(record(history), history)[0].id
    assert TraceParent.read(str(within)) == within

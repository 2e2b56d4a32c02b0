"""The morning view: what it lists, in which order, and how it fits a terminal of 80 columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rich.cells import cell_len

from torch_tasks.cli.summary import _lines, _markdown
from torch_tasks.model.fields import now
from torch_tasks.model.task import (
    DiffStat,
    Evidence,
    Failure,
    FailureKind,
    Question,
    TaskRecord,
    TaskResult,
    TaskSpec,
    TaskState,
)
from torch_tasks.model.usage import Usage
from torch_tasks.monitoring.summary import ORDER, FleetSummary, TaskSummary, in_order
from torch_tasks.orchestration.attention import Need, NeedKind

BEGUN = datetime(2026, 3, 1, 22, tzinfo=UTC)


def record(task_id: str, state: TaskState, prompt: str, **fields: object) -> TaskRecord:
    return TaskRecord(
        spec=TaskSpec(id=task_id, prompt=prompt), state=state, queue="q", created_at=BEGUN, started_at=BEGUN, **fields
    )


def done(task_id: str, minutes: int, answer: str) -> TaskRecord:
    result = TaskResult(
        task_id=task_id,
        status=TaskState.SUCCEEDED,
        answer=answer,
        evidence=(Evidence(kind="check", detail="make test: exit code 0", passed=True),),
        usage=Usage(input_tokens=80_000, output_tokens=4_000, cost_usd=0.5),
        branch="feature/fix-it-3f2a91c0",
        changes=DiffStat(files=3, added=40, removed=2),
    )
    end = BEGUN + timedelta(minutes=minutes)
    return record(task_id, TaskState.SUCCEEDED, "Fix it " * 20, agent="developer-1", finished_at=end, result=result)


FAILED = record(
    "bad",
    TaskState.FAILED,
    "Add | pages",
    agent="qa-1",
    finished_at=BEGUN,
    result=TaskResult(
        task_id="bad",
        status=TaskState.FAILED,
        error=Failure(kind=FailureKind.CHECK_FAILED, message="its check failed: exit code 1"),
        evidence=(Evidence(kind="check", detail="x", passed=False),),
    ),
)
WAITS = record("asks", TaskState.WAITING, "Deploy", agent="ops-1", question=Question(text="Allow Bash(git push)?"))
QUEUED = record("later", TaskState.QUEUED, "Later", waits="no agent has skill rust")
ORDERED = in_order([QUEUED, WAITS, done("second", 12, "All done.\nmore"), FAILED, done("first", 5, "")])
NIGHT = FleetSummary(
    since=BEGUN,
    until=BEGUN + timedelta(hours=12),
    needs=(Need.of(NeedKind.QUESTION, "asks", "ops-1 asks: " + "why " * 40, "torch-tasks answer asks CHOICE"),),
    tasks=tuple(map(TaskSummary.of, ORDERED)),
    counts={TaskState.SUCCEEDED: 2, TaskState.FAILED: 1},
    tokens=168_000,
    cost_usd=1.0,
    is_cut=False,
)


def test_every_state_has_its_place() -> None:
    assert set(ORDER) == set(TaskState)


def test_what_succeeded_comes_first_then_what_failed_then_what_goes_on() -> None:
    assert [task.id for task in NIGHT.tasks] == ["first", "second", "bad", "asks", "later"]


def test_each_task_says_what_became_of_it() -> None:
    second, bad, asks, later = NIGHT.tasks[1:]
    assert (second.check, second.seconds, second.tokens, second.detail) == (True, 720, 84_000, "All done.")
    assert (bad.check, bad.detail) == (False, "its check failed: exit code 1")
    assert asks.detail == "Allow Bash(git push)?"
    assert later.detail == "no agent has skill rust"


def test_what_goes_on_is_counted_until_now() -> None:
    before = (now() - BEGUN).total_seconds()
    seconds = TaskSummary.of(WAITS).seconds
    assert seconds is not None
    assert before <= seconds <= (now() - BEGUN).total_seconds()


def test_it_fits_a_terminal_of_80_columns_and_loses_no_word() -> None:
    lines = [line for text in _lines(NIGHT, 80) for line in text.plain.splitlines()]
    assert max(map(cell_len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    for words in (
        "2 succeeded, 1 failed · 168k tokens · $1.00",
        "torch-tasks answer asks CHOICE",
        "by developer-1 · 12 min · check passed · 3 files +40 -2 · feature/fix-it-3f2a91c0 · 84k tokens · $0.50",
        "✗ bad Add | pages (failed)",
        "… asks Deploy (waiting)",
    ):
        assert words in said
    assert lines.index("WAITS FOR YOU") < lines.index("TASKS")


def test_a_night_with_tasks_in_every_state_fits_too() -> None:
    night = NIGHT.model_copy(update={"counts": dict.fromkeys(TaskState, 10)})
    heading = next(iter(_lines(night, 80))).plain.splitlines()
    assert max(map(cell_len, heading)) <= 80
    assert " ".join(heading).count("10 ") == len(TaskState)


def test_it_says_in_which_zone_its_time_is() -> None:
    assert f"{BEGUN.astimezone():%H:%M %Z} (12 h)" in next(iter(_lines(NIGHT, 80))).plain


def test_markdown_keeps_one_row_for_each_task() -> None:
    rows = [row for row in "\n".join(_markdown(NIGHT)).splitlines() if row.startswith("| ") and "`" in row]
    assert len(rows) == 5
    assert rows[2] == "| Add \\| pages `bad` | failed · by qa-1 · 0 s · check failed | its check failed: exit code 1 |"


def test_an_end_that_nobody_signed_is_not_counted_as_one() -> None:
    forged = done("made-up", 3, "trust me").model_copy(update={"forged": "no node of this fleet says so"})
    night = NIGHT.model_copy(update={"tasks": (TaskSummary.of(forged),), "counts": {}, "not_believed": 1})
    text = "\n".join(line.plain for line in _lines(night, 80))
    assert ": 1 not believed" in text
    assert "(succeeded, not believed)" in text
    assert "no node of this fleet says so" in text
    assert "trust me" not in text
    assert "check passed" not in text
    assert "| succeeded, not believed" in "\n".join(_markdown(night))

"""The oracle sees what is planted, and nothing where nothing is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from chaos.oracle import FLEET, Line, Strike, Verdict, judge
from chaos.table import recoveries, table
from torch_tasks.model.task import TaskRecord, TaskResult, TaskSpec, TaskState

TASK = "task-0001"


def record(
    state: TaskState = TaskState.SUCCEEDED, attempts: int = 1, at: float = 20, answer: str = "done"
) -> TaskRecord:
    """A record as the fleet would have written it."""
    moment = datetime.fromtimestamp(at, UTC)
    return TaskRecord(
        spec=TaskSpec(id=TASK, prompt="true"),
        state=state,
        queue="torch.any.any",
        agent="agent-1",
        attempts=attempts,
        created_at=moment,
        finished_at=moment,
        result=TaskResult(task_id=TASK, status=state, answer=f"{answer}\n") if state.ended else None,
    )


def run(at: float, *, attempt: int = 1, agent: str = "agent-1", whole: bool = True) -> list[Line]:
    """What one run of the task wrote."""
    lines = [Line("start", attempt, at, agent), Line("end", attempt, at + 1, agent)]
    return lines if whole else lines[:1]


def killed(at: float, agent: str = "agent-1") -> Strike:
    """The end of an agent's program, by us."""
    return Strike("agent program SIGKILL", agent, at, at + 0.01, ends_program_of=agent)


def verdict(lines: list[Line], found: TaskRecord | None, *strikes: Strike) -> Verdict:
    return judge({TASK: "done"}, {TASK: lines}, {TASK: found}, strikes)


def test_a_task_done_once_is_good() -> None:
    assert verdict(run(10), record()) == Verdict(accepted=1)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (run(10), None),
        ([], None),
        ([], record()),
        (run(10, whole=False), record()),
        ([], record(TaskState.QUEUED)),
    ],
    ids=["no record", "nothing", "no effect", "half an effect", "queued for ever"],
)
def test_a_lost_task_is_seen(lines: list[Line], found: TaskRecord | None) -> None:
    seen = verdict(lines, found)
    assert seen.lost == 1
    assert not seen.good


@pytest.mark.parametrize(
    "lines",
    [
        run(10) + run(12),
        run(10) + run(12, attempt=2),
        run(10) + run(12, agent="agent-2"),
        run(10, whole=False) + run(10.5, attempt=2),
    ],
    ids=["the same attempt", "another attempt", "another agent", "over the first"],
)
def test_a_doubled_task_is_seen(lines: list[Line]) -> None:
    seen = verdict(lines, record(attempts=2))
    assert (seen.lost, seen.doubled, seen.retried) == (0, 1, 0)
    assert not seen.good


def test_a_task_whose_program_was_ended_under_it_counts_as_retried() -> None:
    seen = verdict(run(10, whole=False) + run(12, attempt=2), record(attempts=2), killed(10.5))
    assert (seen.doubled, seen.retried) == (0, 1)
    assert seen.good


def test_a_task_that_a_dying_program_began_counts_as_retried() -> None:
    lines = run(10, whole=False) + run(12, attempt=2)
    assert verdict(lines, record(attempts=2), killed(9.98)).good
    assert not verdict(lines, record(attempts=2), killed(9.5)).good


def test_a_retry_that_the_record_hides_is_a_double() -> None:
    assert verdict(run(10, whole=False) + run(12, attempt=2), record(attempts=1), killed(10.5)).doubled == 1


@pytest.mark.parametrize(
    "strike",
    [killed(9), killed(14), killed(10.5, "agent-2"), Strike("agent worker SIGKILL", "agent-1", 10.5, 10.6)],
    ids=["before", "after", "another agent's", "only the worker"],
)
def test_what_did_not_end_the_effect_excuses_no_double(strike: Strike) -> None:
    assert verdict(run(10, whole=False) + run(12, attempt=2), record(attempts=2), strike).doubled == 1


def test_a_program_ended_long_after_the_effect_was_complete_excuses_no_double() -> None:
    assert verdict(run(10) + run(20, attempt=2), record(attempts=2), killed(15)).doubled == 1


@pytest.mark.parametrize("state", [TaskState.RUNNING, TaskState.PARKED])
def test_a_task_that_never_ends_is_seen(state: TaskState) -> None:
    seen = verdict(run(10), record(state))
    assert seen.unfinished == 1
    assert not seen.good


@pytest.mark.parametrize("found", [record(TaskState.FAILED), record(TaskState.DEAD), record(answer="something else")])
def test_a_task_with_another_end_than_its_own_is_seen(found: TaskRecord) -> None:
    seen = verdict(run(10), found)
    assert seen.failed == 1
    assert not seen.good


def test_lines_are_read_as_the_task_writes_them(tmp_path: Path) -> None:
    file = tmp_path / TASK
    file.write_text(f"start /state/agents/agent-1/runs/{TASK}.3 10.500000 agent-1 7\n")
    assert Line.read(file) == [Line("start", 3, 10.5, "agent-1")]
    assert Line.read(tmp_path / "nothing") == []


def test_recovery_is_the_time_until_the_struck_part_delivers() -> None:
    strikes = [killed(10), killed(10, "agent-2"), Strike("broker SIGKILL", FLEET, 19, 19.01)]
    assert recoveries(strikes, {TASK: record(at=20)}) == {"agent program SIGKILL": [10], "broker SIGKILL": [1]}


def test_the_table_names_each_fault_and_each_count() -> None:
    strikes = [killed(10), Strike("broker SIGKILL", FLEET, 19, 19.01)]
    lines = table(strikes, {TASK: record(at=20)}, verdict(run(10) + run(12), record(), *strikes)).splitlines()
    assert lines[1].split() == ["agent", "program", "SIGKILL", "1", "10.0", "s", "10.0", "s", "10.0", "s"]
    assert lines[2].split() == ["broker", "SIGKILL", "1", "1.0", "s", "1.0", "s", "1.0", "s"]
    assert lines[-1].split("   ")[:3] == ["accepted 1", "lost 0", "doubled 1"]

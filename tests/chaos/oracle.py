"""The oracle: what became of every task, seen in the effects themselves and not in what anybody says of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

from appended import whole_lines

from torch_tasks.model.task import TaskRecord, TaskState

FLEET = "the fleet"
#: After its last line a task's shell still reports its end; killed before it can, it counts as killed in the middle.
TELLING_SECONDS = 2.5
#: How long a struck program may still run: the kernel signals one whose terminal was killed.
DYING_SECONDS = 0.2


@dataclass
class Strike:
    """A fault that struck, between two moments of this machine's clock."""

    kind: str
    recovered_by: str
    """The agent, or the fleet, whose next completed task ends the fault; or the service that must run again."""
    before: float
    after: float
    ends_program_of: str | None = None
    """The agent whose program it ended, together with the effect of a task."""
    back_at: float | None = None
    """When who completes no tasks was seen to run again."""

    def __str__(self) -> str:
        moments = [datetime.fromtimestamp(at).strftime("%H:%M:%S.%f")[:-3] for at in (self.before, self.after)]
        return f"{moments[0]} … {moments[1]}  {self.kind}, {self.recovered_by}"


@dataclass(frozen=True)
class Line:
    """What a task wrote when its effect began or was complete."""

    what: str
    attempt: int
    at: float
    agent: str

    @classmethod
    def read(cls, file: Path) -> list[Self]:
        """All lines of one task, in the order in which they were written."""
        lines = [line.split() for line in whole_lines(file)]
        return [cls(what, int(run.rpartition(".")[2]), float(at), agent) for what, run, at, agent, _ in lines]


@dataclass
class Verdict:
    """The oracle's counts, and for each task in question what is wrong with it."""

    accepted: int = 0
    lost: int = 0
    doubled: int = 0
    unfinished: int = 0
    failed: int = 0
    retried: int = 0
    """Tasks that started more than once because their agent's program was ended under them; their records say so."""
    findings: dict[str, list[str]] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing was lost, nothing doubled, nothing left."""
        return not self.findings and not self.orphans


def judge(
    answers: Mapping[str, str],
    effects: Mapping[str, Sequence[Line]],
    records: Mapping[str, TaskRecord | None],
    strikes: Sequence[Strike],
) -> Verdict:
    """What became of the accepted tasks, each of which must have printed this answer."""
    verdict = Verdict(accepted=len(answers))
    for task, answer in answers.items():
        lines, record = effects.get(task, ()), records.get(task)
        lost, unfinished, failed = _lost(lines, record), _unfinished(record), _failed(record, answer)
        doubled = list(_doubled(lines, record, strikes))
        verdict.lost += bool(lost)
        verdict.unfinished += bool(unfinished)
        verdict.failed += bool(failed)
        verdict.doubled += bool(doubled)
        verdict.retried += not doubled and sum(line.what == "start" for line in lines) > 1
        if wrong := [*lost, *unfinished, *failed, *doubled]:
            verdict.findings[task] = wrong
    return verdict


def _lost(lines: Sequence[Line], record: TaskRecord | None) -> list[str]:
    if record is None:
        return ["lost: it has no record"]
    if not any(line.what == "end" for line in lines) and record.state in (TaskState.SUCCEEDED, TaskState.QUEUED):
        return [f"lost: it is {record.state} without its effect"]
    return []


def _unfinished(record: TaskRecord | None) -> list[str]:
    return [f"unfinished: it is {record.state} still"] if record and not record.state.ended else []


def _failed(record: TaskRecord | None, answer: str) -> list[str]:
    if record is None or not record.state.ended:
        return []
    if record.state is not TaskState.SUCCEEDED or record.result is None:
        why = record.result.summary if record.result else record.note
        return [f"failed: it is {record.state}: {why}"]
    if record.result.answer.strip() != answer:
        return [f"failed: its answer is {record.result.answer!r}"]
    return []


def _doubled(lines: Sequence[Line], record: TaskRecord | None, strikes: Iterable[Strike]) -> Iterable[str]:
    starts = sorted((line for line in lines if line.what == "start"), key=lambda line: line.at)
    for first, second in itertools.pairwise(starts):
        ends = (line.at for line in lines if line.what == "end" and _same_run(line, first) and line.at >= first.at)
        end = min(ends, default=second.at)
        until = min(second.at, end + TELLING_SECONDS)
        ended = [
            strike
            for strike in strikes
            if strike.ends_program_of == first.agent
            and first.at <= strike.after + DYING_SECONDS
            and strike.before <= until
        ]
        gap = f"started on {first.agent} at {first.at:.3f} and again on {second.agent} at {second.at:.3f}"
        if not ended:
            yield f"doubled: {gap}, though no fault ended the agent's program meanwhile"
        elif second.attempt == first.attempt:
            yield f"doubled: {gap}, both as attempt {first.attempt}"
    if len(starts) > 1 and record and record.attempts < len(starts):
        yield f"doubled: it started {len(starts)} times, its record has {record.attempts} attempts"


def _same_run(line: Line, other: Line) -> bool:
    return (line.agent, line.attempt) == (other.agent, other.attempt)

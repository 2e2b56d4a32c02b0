"""What a night has brought: what waits for a person, then what became of each task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Self

from pydantic import AwareDatetime

from torch_tasks.fleet import Fleet
from torch_tasks.model.fields import Model, now, title_of
from torch_tasks.model.routing import Prospects
from torch_tasks.model.task import DiffStat, TaskRecord, TaskState
from torch_tasks.orchestration.attention import Need, needs
from torch_tasks.tasks.requests import with_prospects

MOST_TASKS = 2000
"""Of so many tasks, those accepted last, it is looked which belong into a summary."""
ORDER = (
    TaskState.SUCCEEDED,
    TaskState.DEAD,
    TaskState.FAILED,
    TaskState.CANCELLED,
    TaskState.WAITING,
    TaskState.RUNNING,
    TaskState.ASSIGNED,
    TaskState.PARKED,
    TaskState.QUEUED,
    TaskState.PENDING,
)
"""What has ended, then what goes on, then what has not begun."""


class TaskSummary(Model):
    id: str
    title: str
    state: TaskState
    agent: str | None
    detail: str
    """The first line of the answer; of a task that failed, why; of one that goes on, what it waits for."""
    check: bool | None
    """Whether the check command passed; None if there was none."""
    changes: DiffStat | None
    branch: str | None
    seconds: float | None
    """From the first beginning to the end, or until now."""
    tokens: int
    cost_usd: float | None
    finished_at: AwareDatetime | None
    forged: bool = False
    """No node of the fleet says that it ended like this."""

    @classmethod
    def of(cls, record: TaskRecord) -> Self:
        result = None if record.forged else record.result
        usage = result.usage if result else None
        checks = [evidence.passed for evidence in result.evidence if evidence.kind == "check"] if result else []
        begun, ended = record.started_at or record.assigned_at, record.finished_at
        return cls(
            id=record.spec.id,
            title=record.spec.title,
            state=record.state,
            agent=record.agent,
            detail=_detail(record),
            check=checks[-1] if checks else None,
            changes=result.changes if result else None,
            branch=result.branch if result else None,
            forged=bool(record.forged),
            seconds=((ended or now()) - begun).total_seconds() if begun else None,
            tokens=usage.input_tokens + usage.output_tokens if usage else 0,
            cost_usd=usage.cost_usd if usage else None,
            finished_at=ended,
        )


class FleetSummary(Model):
    since: AwareDatetime
    until: AwareDatetime
    needs: tuple[Need, ...]
    tasks: tuple[TaskSummary, ...]
    """Those that ended in this time, and those that have not ended."""
    counts: dict[TaskState, int]
    """How many tasks are in each state, in the order in which they are listed; without those that are not believed."""
    not_believed: int = 0
    """How many are said to have ended, and no node of the fleet says so."""
    tokens: int
    cost_usd: float
    is_cut: bool
    """There are more tasks than a summary looks at; older ones may be missing."""


def summarize(fleet: Fleet, since: datetime) -> FleetSummary:
    """What waits for a person now, and what became of the fleet's tasks since then."""
    records, agents = fleet.records.latest(MOST_TASKS), fleet.registry.agents()
    prospects = Prospects(agents)
    wanted = in_order(with_prospects(record, prospects) for record in records if _belongs(record, since))
    tasks = tuple(map(TaskSummary.of, wanted))
    return FleetSummary(
        since=since,
        until=now(),
        needs=tuple(needs(fleet)),
        tasks=tasks,
        counts=Counter(task.state for task in tasks if not task.forged),
        not_believed=sum(task.forged for task in tasks),
        tokens=sum(task.tokens for task in tasks),
        cost_usd=sum(task.cost_usd or 0 for task in tasks),
        is_cut=len(records) == MOST_TASKS,
    )


def _belongs(record: TaskRecord, since: datetime) -> bool:
    return record.finished_at is None or record.finished_at >= since


def in_order(records: Iterable[TaskRecord]) -> list[TaskRecord]:
    return sorted(records, key=lambda record: (ORDER.index(record.state), record.finished_at or record.created_at))


def _detail(record: TaskRecord) -> str:
    if record.forged:
        return record.forged
    result = record.result
    if record.state is TaskState.SUCCEEDED:
        return title_of(result.answer) if result and result.answer.strip() else ""
    if result and result.error:
        return title_of(result.error.message)
    if record.question:
        return title_of(record.question.text)
    if record.unroutable:
        return "no online agent can do it"
    why = record.waits or record.note
    return title_of(why) if why else ""

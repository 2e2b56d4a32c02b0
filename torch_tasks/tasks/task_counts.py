"""Counts for the metrics what becomes of tasks at an agent."""

from __future__ import annotations

from datetime import datetime

from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import now
from torch_tasks.model.task import Failure, FailureKind, TaskRecord, TaskResult, TaskState
from torch_tasks.system.tally import tally

NONE = "none"


def begin(agent: AgentInfo) -> None:
    """Show zeros for what an alert waits for: its first count is an increase then."""
    for what in ("task", "message"):
        tally().begin(metrics.UNKNOWN_DELIVERIES, role=agent.role, what=what)


def redelivered(agent: AgentInfo) -> None:
    """It came again because a worker was lost with it."""
    tally().count(metrics.TASKS_REDELIVERED, role=agent.role)


def taken(record: TaskRecord, agent: AgentInfo, *, is_taken_over: bool) -> None:
    """The agent took it, perhaps from one that is dead; the record says when."""
    with tally().at_once():
        tally().count(metrics.TASKS_TAKEN, role=agent.role, kind=agent.kind)
        if is_taken_over:
            tally().count(metrics.TASKS_TAKEN_OVER, role=agent.role)
        elif record.attempts == 1:
            waited = _between(record.created_at, record.assigned_at or now())
            tally().observe(metrics.TASK_QUEUE_SECONDS, waited, role=agent.role)


def retried(failure: Failure, agent: AgentInfo) -> None:
    tally().count(metrics.TASKS_RETRIED, role=agent.role, failure=failure.kind)


def ended(record: TaskRecord, result: TaskResult, agent: AgentInfo) -> None:
    """It ended at this agent, done by it or not begun at all."""
    with tally().at_once():
        tally().count(metrics.TASKS_ENDED, role=agent.role, kind=agent.kind, end=result.status)
        tally().observe(metrics.TASK_TOTAL_SECONDS, _between(record.created_at, now()), role=agent.role)
        if result.started_at and result.finished_at:
            took = _between(result.started_at, result.finished_at)
            tally().observe(metrics.TASK_RUN_SECONDS, took, role=agent.role, kind=agent.kind)
        if result.error and result.error.kind is FailureKind.INDETERMINATE:
            tally().count(metrics.UNKNOWN_DELIVERIES, role=agent.role, what="task")


def ended_without_agent(end: TaskState, count: int = 1) -> None:
    """So many ended while no agent had them; a role that one asked for may be nobody's, and is not shown."""
    tally().count(metrics.TASKS_ENDED, by=count, role=NONE, kind=NONE, end=end)


def _between(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()

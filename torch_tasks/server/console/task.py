"""One task: where it stands and why, what became of it with the evidence, and what may be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch_tasks.model.fields import now
from torch_tasks.model.task import HELD, NOT_BEGUN, Evidence, HistoryEntry, TaskRecord, TaskState, TaskStep
from torch_tasks.model.task_graph import TaskGraph
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.server.console.board import address
from torch_tasks.server.console.graph import BOX_HEIGHT, BOX_WIDTH, draw
from torch_tasks.server.console.page import NAMES_SECONDS, ConsolePage, Visit
from torch_tasks.server.console.spans import bars

_CHECK = "check"
_WORDS: dict[TaskStep | TaskState, str] = {
    TaskStep.STAGED: "its prompt was seen in the program's input line",
    TaskStep.SUBMITTED: "the prompt left the input line",
    TaskStep.ACCEPTED: "the program shows that it works on it",
    TaskStep.CHECKING: "the turn ended; its check runs",
    TaskStep.SENT_BACK: "the check failed, and the program was told",
    TaskStep.ADOPTED: "the agent's next worker goes on with it in the same pane",
    TaskStep.TAKEN_OVER: "another agent took it: the one before is dead",
    TaskStep.HANDED_OVER: "it is to be given to another agent",
    TaskStep.RETRIED: "that try failed, and there is another one",
    TaskState.PENDING: "it waits for other tasks",
    TaskState.QUEUED: "it waits for an agent that is free",
    TaskState.ASSIGNED: "an agent took it",
    TaskState.RUNNING: "the agent began",
    TaskState.WAITING: "the agent waits for an answer",
    TaskState.PARKED: "it waits until it can go on",
    TaskState.SUCCEEDED: "it was done",
    TaskState.FAILED: "it failed",
    TaskState.CANCELLED: "it was cancelled",
    TaskState.DEAD: "no try is left",
}


@dataclass(frozen=True)
class TimelineStep:
    """One step of a task's way, with what shows that it was taken."""

    entry: HistoryEntry
    name: str
    words: str
    evidence: tuple[Evidence, ...] = ()


def gather(visit: Visit) -> dict[str, Any]:
    task_id = visit.path["task_id"]
    record: TaskRecord = visit.ask("task.get", task_id=task_id)
    history: list[HistoryEntry] = visit.ask("task.history", task_id=task_id)
    trace = visit.ask("task.trace", task_id=task_id)
    graph: TaskGraph = visit.ask("task.graph", task_id=task_id)
    agents = visit.ask_together("agent.list", NAMES_SECONDS)
    evidence = record.result.evidence if record.result and not record.forged else ()
    return {
        "task": record,
        "steps": tuple(timeline(record, history)),
        "evidence": evidence,
        "checks": [one for one in evidence if one.kind == _CHECK],
        "bars": tuple(bars(trace, now())),
        "trace": trace,
        "graph": draw(graph),
        "graph_is_cut": graph.left_out,
        "box_width": BOX_WIDTH,
        "box_height": BOX_HEIGHT,
        "trace_address": address({"trace": TraceParent.of(record.trace, task_id).trace_id}),
        "successors": sorted({one.agent_id for one in agents} | {one.role for one in agents}),
        "has_begun": record.state in HELD,
        "has_not_begun": record.state in NOT_BEGUN,
        "is_dead": record.state is TaskState.DEAD and not record.forged,
        "may_change": visit.may("task.cancel", task=task_id),
        "may_answer": visit.may("task.answer", task=task_id),
        "may_revive": visit.may("task.replay", task=task_id),
        "heading": record.spec.title,
    }


def timeline(record: TaskRecord, history: Sequence[HistoryEntry]) -> Iterator[TimelineStep]:
    """The steps of a task, oldest first; the last one holds the evidence of its end, if that is believed."""
    first = TaskState.PENDING if record.spec.after else TaskState.QUEUED
    asked = f"by {record.enqueued_by.name}" if record.enqueued_by else ""
    begin = HistoryEntry(at=record.created_at, state=first, note=asked or None)
    yield TimelineStep(begin, "accepted by Torch", _WORDS[first])
    for entry in history:
        what = entry.step or entry.state
        is_end = entry.state.ended and entry is history[-1] and record.result and not record.forged
        evidence = record.result.evidence if is_end and record.result else ()
        yield TimelineStep(entry, str(what).replace("_", " "), _WORDS[what], evidence)


TASK = ConsolePage("task", "/tasks/{task_id}", "Task", gather, under="board")

"""The operations on tasks."""

from __future__ import annotations

import time
from typing import Any

from pydantic import AwareDatetime, Field

from torch_tasks.broker.refused import RefusedLetter
from torch_tasks.caller import caller
from torch_tasks.errors import BrokerUnreachable
from torch_tasks.fleet import fleet
from torch_tasks.model.address import Address, far_agent
from torch_tasks.model.board import Board, BoardFilter, BoardPlace, PlaceText
from torch_tasks.model.fields import Model, Skill, TaskId, Text
from torch_tasks.model.handover import Handover
from torch_tasks.model.message import Message
from torch_tasks.model.routing import Prospects
from torch_tasks.model.task import HistoryEntry, Permissions, TaskRecord, TaskSpec, TaskState
from torch_tasks.model.task_diff import TaskDiff
from torch_tasks.model.task_graph import TaskGraph
from torch_tasks.model.trace import Trace
from torch_tasks.model.traceparent import PlaceInTrace
from torch_tasks.operations import crossing
from torch_tasks.operations.operation import WAIT_SECONDS, Access, News, Nothing, Request, WaitSeconds, operation
from torch_tasks.orchestration import assignment
from torch_tasks.orchestration.assignment import Assignment, AssignmentStatus
from torch_tasks.security.decision import decide
from torch_tasks.security.rights import Right, Subject
from torch_tasks.tasks import board, recovery, requests
from torch_tasks.tasks.dead_letters import DeadLetters

TRACEPARENT: Any = Field(None, description="The caller's span, as the W3C writes it: the task is drawn under it.")


class OfTask(Request):
    """A request about one task."""

    task_id: TaskId


class Enqueue(TaskSpec, Request):
    """A task, and how it is handed over."""

    agent: Address | None = Field(
        None, description="Only this agent: its id, or AGENT@FLEET in another fleet of the settings."
    )
    agent_kind: Skill | None = Field(None, description="Only an agent of this kind: claude, codex, shell, …")
    spool: bool = Field(False, description="While the broker is away, keep the task on this machine's disk.")
    traceparent: PlaceInTrace = TRACEPARENT

    @property
    def spec(self) -> TaskSpec:
        """The task alone."""
        fields = {name: getattr(self, name) for name in TaskSpec.model_fields}
        if self.agent_kind is None:
            return TaskSpec.model_construct(**fields)  # they have been looked at
        return TaskSpec.build(**fields | {"skills": [*self.skills, self.agent_kind]})


class EnqueueMany(Request):
    """Many tasks, all of them or none; they may be after each other in any order."""

    tasks: tuple[TaskSpec, ...]
    spool: bool = Field(False, description="While the broker is away, keep the tasks on this machine's disk.")
    traceparent: PlaceInTrace = TRACEPARENT


class AcceptedTask(Model):
    """A task that Torch accepted."""

    id: TaskId
    spooled: bool = False
    """It waits on this machine's disk, because the broker is away, or for another fleet."""


def _granting(*specs: TaskSpec) -> Right | None:
    return Right.GRANT if any(spec.permissions is Permissions.ALLOW for spec in specs) else None


def _of_task(asked: OfTask) -> Subject:
    return Subject(task=asked.task_id)


@operation("task.enqueue", Right.ENQUEUE, access=Access.WRITE, also=lambda asked: _granting(asked), needs_broker=False)
def enqueue(asked: Enqueue) -> AcceptedTask:
    """Hand a task to the fleet; returns at once."""
    if far := far_agent(asked.agent):
        fields = asked.model_dump(mode="json", exclude={"agent", "spool"}, exclude_none=True)
        crossing.accept(enqueue.name, asked.id, {**fields, "agent": far.agent_id}, far)
        return AcceptedTask(id=asked.id, spooled=True)
    spec = asked.spec
    _settle(asked.spool)
    from torch_tasks.app import app
    from torch_tasks.tasks.batch import made_ready
    from torch_tasks.tasks.publishing import publish

    [outgoing] = made_ready([spec], app, asked.traceparent)
    publish(outgoing, app, spool=asked.spool)
    return AcceptedTask(id=spec.id, spooled=asked.spool and recovery.is_spooled(spec.id))


@operation(
    "task.enqueue_many",
    Right.ENQUEUE,
    access=Access.WRITE,
    also=lambda asked: _granting(*asked.tasks),
    needs_broker=False,
)
def enqueue_many(asked: EnqueueMany) -> list[AcceptedTask]:
    """Hand many tasks to the fleet, all of them or none, at a fraction of what each costs by itself."""
    from torch_tasks.app import app
    from torch_tasks.tasks.batch import Batch, made_ready
    from torch_tasks.tasks.task_file import in_order

    ordered = in_order(asked.tasks)
    _settle(asked.spool)
    waiting = Batch(made_ready(ordered, app, asked.traceparent), app, spool=asked.spool).accept()
    return [AcceptedTask(id=spec.id, spooled=spec.id in waiting) for spec in asked.tasks]


def _settle(spool: bool) -> None:
    try:
        recovery.settle()
    except BrokerUnreachable:
        if not spool:
            raise


class Assign(TaskSpec, Request):
    """A task for the best agent."""

    look_at_pools: bool = Field(True, description="If no agent is able, see at once whether a pool can grow.")

    @property
    def spec(self) -> TaskSpec:
        """The task alone."""
        return TaskSpec.build(**{name: getattr(self, name) for name in TaskSpec.model_fields})


@operation("task.assign", Right.ENQUEUE, access=Access.WRITE, also=lambda asked: _granting(asked))
def assign(asked: Assign) -> Assignment:
    """Hand a task to the fleet and have the best free agent begin with it."""
    assigned = assignment.assign(asked.spec)
    if assigned.status is AssignmentStatus.UNROUTABLE and asked.look_at_pools:
        assignment.look_at_pools()
    return assigned


@operation("task.get", Right.LOOK, about=_of_task)
def get(asked: OfTask) -> TaskRecord:
    """One task: what is asked, where it stands, how it ended, and why it waits."""
    return requests.with_prospects(requests.record_of(asked.task_id))


MOST_AT_ONCE = 500
"""So many tasks may one request name."""


class OfTasks(Request):
    """A request about several tasks."""

    task_ids: tuple[TaskId, ...] = Field(max_length=MOST_AT_ONCE)


@operation("task.records", Right.LOOK)
def records(asked: OfTasks) -> list[TaskRecord]:
    """Several tasks at once, as their records are; those that are unknown are left out."""
    seen = [one for one in asked.task_ids if _may_see(one)]
    return [record for record in fleet().records.find_all(seen) if record]


@operation("task.spooled", Right.LOOK, about=_of_task, needs_broker=False)
def is_spooled(asked: OfTask) -> bool:
    """Whether a task waits on this machine's disk: the broker was away when it was enqueued, or another fleet is."""
    return recovery.is_spooled(asked.task_id) or fleet().crossings.waits(enqueue.name, asked.task_id)


@operation("task.history", Right.LOOK, about=_of_task)
def history(asked: OfTask) -> list[HistoryEntry]:
    """What became of a task so far, oldest first."""
    return fleet().records.history(asked.task_id)


@operation("task.trace", Right.LOOK, about=_of_task)
def trace(asked: OfTask) -> Trace:
    """What became of a task, and of all tasks and messages of its trace, as spans of time: waits, attempts, phases."""
    from torch_tasks.monitoring.traces import TraceReader

    reader = TraceReader(fleet(), _may_see, _may_see_message)
    return reader.around(requests.record_of(asked.task_id))


@operation("task.graph", Right.LOOK, about=_of_task)
def graph(asked: OfTask) -> TaskGraph:
    """What a task waits for and what waits for it, however far away."""
    from torch_tasks.tasks.graph import graph_around

    requests.record_of(asked.task_id)
    return graph_around(asked.task_id, _may_see)


@operation("task.diff", Right.LOOK, about=_of_task)
def diff(asked: OfTask) -> TaskDiff:
    """What a task changed in its git tree, as the machine of its agent shows it; or why that cannot be seen."""
    from torch_tasks.monitoring.task_diffs import changes_of_task

    return changes_of_task(requests.record_of(asked.task_id))


def _may_see(task_id: str) -> bool:
    return decide(caller(), Right.LOOK, Subject(task=task_id)).allowed


def _may_see_message(message: Message) -> bool:
    from torch_tasks.operations.messages import subject_of

    return decide(caller(), Right.READ, subject_of(message)).allowed


class ListTasks(Request):
    limit: int = Field(50, ge=1, description="How many.")
    states: tuple[TaskState, ...] = Field((), description="Only tasks in one of these states.")


@operation("task.list", Right.LOOK)
def list_tasks(asked: ListTasks) -> list[TaskRecord]:
    """The latest tasks, newest first."""
    prospects = Prospects(fleet().registry.agents())
    return [requests.with_prospects(record, prospects) for record in fleet().records.latest(asked.limit, asked.states)]


class LookAtBoard(Request):
    states: tuple[TaskState, ...] = Field((), description="Only tasks in one of these states.")
    role: str = Field("", max_length=128, description="Only tasks that ask for this role.")
    agent: str = Field("", max_length=128, description="Only tasks that this agent has, had last, or is to have.")
    trace: str = Field("", max_length=128, description="Only tasks of this trace.")
    words: str = Field("", max_length=500, description="Words of the title, or how the id begins.")
    before: PlaceText | None = Field(None, description="Go on after this place: `older` of the page before.")
    limit: int = Field(50, ge=1, le=200, description="How many.")


@operation("task.board", Right.LOOK)
def look_at_board(asked: LookAtBoard) -> Board:
    """The tasks that are looked for, newest first, page by page, and how many of them are in each state."""
    wanted = BoardFilter(asked.role, asked.agent, asked.trace, asked.words)
    place = BoardPlace.read(asked.before) if asked.before else None
    return board.look(wanted, asked.states, place, asked.limit)


class Wait(OfTask):
    seconds: WaitSeconds = WAIT_SECONDS
    since: TaskState | None = Field(
        None, description="Return as soon as its state is another one than this (default: when it has ended)."
    )


_NEWS_OF_TASK = News(
    concerns=lambda asked: lambda event: event.kind == "tasks" and event.id == asked.task_id,
    came=lambda asked, record: record.state.ended or asked.since not in (None, record.state),
)


@operation("task.wait", Right.LOOK, about=_of_task, news=_NEWS_OF_TASK)
def wait(asked: Wait) -> TaskRecord:
    """Wait until a task has ended, or has another state than before; returns its record, whichever it is."""
    for state in fleet().records.changes(asked.task_id, deadline=time.monotonic() + asked.seconds):
        if state is None:
            requests.record_of(asked.task_id)
        elif state.ended or asked.since not in (None, state):
            break
    record = requests.with_prospects(requests.record_of(asked.task_id))
    if record.state.ended:
        recovery.keep_end(asked.task_id)
    return record


@operation("task.cancel", Right.CHANGE, access=Access.WRITE, about=_of_task)
def cancel(asked: OfTask) -> TaskState:
    """End a task at once if no agent has begun it, else interrupt its agent; returns the state that it was in."""
    return requests.cancel(asked.task_id)


class GiveAnswer(OfTask):
    reply: Text = Field(description="The number of a choice, its words, or a text.")
    asked_at: AwareDatetime | None = Field(
        None, description="Only the question that was asked then: no later one gets an answer that was meant for it."
    )


@operation("task.answer", Right.ANSWER, access=Access.WRITE, about=_of_task)
def answer(asked: GiveAnswer) -> str:
    """Answer what a waiting task's agent asks, or an agent (its id as ``task_id``) that is held up at its start."""
    return requests.answer(asked.task_id, asked.reply, asked.asked_at)


class HandOver(OfTask):
    to: str = Field(description="The agent, or a role: any agent that has it.")
    note: str = Field("", description="What the next agent should know: what is done, what is left.")
    questions: tuple[str, ...] = Field((), description="Open questions.")


@operation("task.handoff", Right.CHANGE, access=Access.WRITE, about=_of_task)
def handoff(asked: HandOver) -> Handover:
    """Hand a task over to another agent, or to any of a role; its present agent is interrupted first."""
    from torch_tasks.tasks.handover import hand_over

    requests.record_of(asked.task_id)
    return hand_over(asked.task_id, asked.to, asked.note, asked.questions)


class AwaitHandover(OfTask):
    seconds: WaitSeconds = WAIT_SECONDS


class HandoverProgress(Model):
    record: TaskRecord
    given_up: bool
    """Whether the former agent has stopped working on it."""


@operation("task.handed_over", Right.LOOK, about=_of_task)
def handed_over(asked: AwaitHandover) -> HandoverProgress:
    """Wait until the agent that hands a task over has stopped working on it."""
    from torch_tasks.tasks.handover import await_handover

    record, given_up = await_handover(asked.task_id, asked.seconds)
    return HandoverProgress(record=record, given_up=given_up)


class DeadTasks(Model):
    """What lies among the dead letters."""

    tasks: list[TaskRecord]
    """The latest first."""
    refused: dict[str, RefusedLetter]
    """What could not be read, by its name."""
    not_kept: int
    """How many that were refused are not kept any more."""
    others: list[str]
    """The messages of other Celery tasks."""


@operation("task.dead", Right.LOOK)
def dead(asked: Nothing) -> DeadTasks:
    """The tasks that ran out of retries, and the messages that were refused because they could not be read."""
    letters, refused = DeadLetters(fleet()), fleet().refused
    records, refusals = letters.records(), refused.all()
    others = set(letters.ids()) - {record.spec.id for record in records} - refusals.keys()
    return DeadTasks(tasks=records, refused=refusals, not_kept=refused.dropped(), others=sorted(others))


class Replayed(Model):
    id: TaskId
    failed_with: tuple[TaskRecord, ...] = ()
    """The tasks that failed because this one had; they stay so."""


@operation("task.replay", Right.REVIVE, access=Access.WRITE, about=_of_task)
def replay(asked: OfTask) -> Replayed:
    """Queue a dead task again, with all its retries; it keeps its id and history."""
    letters = DeadLetters(fleet())
    letters.replay(asked.task_id)
    return Replayed(id=asked.task_id, failed_with=tuple(letters.failed_with(asked.task_id)))


@operation("task.drop", Right.REVIVE, access=Access.WRITE, about=_of_task)
def drop(asked: OfTask) -> None:
    """Delete a dead task for good."""
    DeadLetters(fleet()).drop(asked.task_id)

"""The task records: every statement that reads or writes one.

A record changes only along :data:`~torch_tasks.model.task.TRANSITIONS`, and only the agent that owns the task changes
it; both are checked on the broker, in the script that writes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

import redis

from torch_tasks import keys
from torch_tasks.broker.scripts import Scripts
from torch_tasks.errors import IllegalTransition, StaleWriter, TaskNotFound
from torch_tasks.model.agent import FORMAT, AgentInfo
from torch_tasks.model.asker import Asker
from torch_tasks.model.handover import Handoff, Handover
from torch_tasks.model.reader import number, read_model
from torch_tasks.model.task import (
    ENDED,
    HELD,
    NOT_BEGUN,
    TRANSITIONS,
    Failure,
    FailureKind,
    TaskRecord,
    TaskResult,
    TaskSpec,
    TaskState,
    TaskStep,
)
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.redaction import redacted
from torch_tasks.settings import Settings
from torch_tasks.store.agents import signs_of_death
from torch_tasks.store.signed_records import is_signed_spec, signed_end, signed_spec, signed_state
from torch_tasks.store.task_fields import (
    END_SIGNATURE,
    SPEC_SIGNATURE,
    fingerprint,
    milliseconds_of,
)
from torch_tasks.store.task_outcomes import Acceptance, Accepted, NewTask, Ownership, Release, Take, Taken
from torch_tasks.store.task_reading import TaskReader
from torch_tasks.transport.deliveries import BELL_LENGTH, BELL_MS, list_of
from torch_tasks.transport.envelope import readdressed

_MOMENTS = {TaskState.ASSIGNED: "assigned_at", TaskState.RUNNING: "started_at"} | dict.fromkeys(ENDED, "finished_at")

HISTORY_KEPT = 100
"""How many entries of a task's history are kept, the latest."""
_WORDS_KEPT = 500
_SHOWN = ("note", "question")
"""The fields that hold what an agent, its terminal or a person said."""
SCRIPTS = Scripts(
    __file__,
    TRANSITIONS=TRANSITIONS,
    HELD=HELD,
    ENDED=ENDED,
    MOMENTS=_MOMENTS,
    PERFORMANCE=FORMAT,
    HISTORY_KEPT=HISTORY_KEPT,
    BELL_LENGTH=BELL_LENGTH,
    BELL_MS=BELL_MS,
)


class TaskRecords(TaskReader):
    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        super().__init__(client)
        self._settings = settings
        self._keep_seconds = int(settings.result_days * 86400)

    def accept(self, task: NewTask, *, must_know: bool = False) -> Accepted:
        """Write the record of a new task and demand its queue; an existing record stays as it is.

        In the same step its message is put where it is to lie, or aside while the task waits for others, if it is
        given.

        The record keeps who asked for it: ``by``, or who asks now; and its place in a ``trace``.

        With ``must_know``, nothing is written if the task is to begin after one that does not exist.
        """
        return _accepted(self._accept(self._client, task, must_know=must_know))

    def accept_all(self, tasks: Iterable[NewTask]) -> list[Accepted | Exception]:
        """:meth:`accept` each that waits for none that is unknown, in this order and one round trip.

        Returns what became of each, or the error that the broker has answered for it.
        """
        with self._client.pipeline(transaction=False) as pipe:
            for task in tasks:
                self._accept(pipe, task, must_know=True)
            answers = pipe.execute(raise_on_error=False)
        return [answer if isinstance(answer, Exception) else _accepted(answer) for answer in answers]

    def _accept(self, client: redis.Redis, task: NewTask, *, must_know: bool) -> Any:
        task_id, wire, queue, by, trace, placing = task
        after = wire.get("after", ())
        return SCRIPTS["accept"](
            client,
            record=keys.task_record(task_id),
            all=keys.TASK_STATUS,
            deadlines=keys.DEADLINES,
            **_demand(queue),
            set_aside=keys.SET_ASIDE,
            list=placing.list if placing else queue,
            bell=placing.bell if placing else keys.bell(queue),
            message=placing.message if placing else "",
            awaited=map(keys.task_record, after),
            after=after,
            must_know=must_know,
            id=task_id,
            spec=json.dumps(wire),
            asked=fingerprint(wire),
            deadline_ms=milliseconds_of(wire.get("deadline")),
            enqueued_by=(by or Asker.now()).model_dump_json(exclude_none=True),
            together=keys.task_trace(TraceParent.of(trace, task_id).trace_id),
            trace=trace,
            keep_seconds=self._keep_seconds,
        )

    def release(self, record: TaskRecord) -> tuple[Release, str]:
        """Queue a pending task if all that it waited for have succeeded; returns also the one that has not, if so."""
        spec = record.spec
        message = self._client.hget(keys.SET_ASIDE, spec.id)
        ends = [account.get(END_SIGNATURE, "") for account in self.accounts(spec.after)]
        for place, awaited in enumerate(spec.after):
            if (known := self.find(awaited)) and known.forged:
                ends[place] = "none"
        outcome, number = SCRIPTS["release"](
            self._client,
            **_changed(spec.id),
            set_aside=keys.SET_ASIDE,
            list=list_of(record.queue, spec.priority.step),
            bell=keys.bell(record.queue),
            awaited=map(keys.task_record, spec.after),
            id=spec.id,
            queue=record.queue,
            becomes=readdressed(str(message or ""), record.queue, even_expired=True),
            ends=ends,
        )
        return Release(outcome), spec.after[int(number) - 1] if int(number) else ""

    def forget(self, task_id: str) -> None:
        """Delete the record of a task that could not be published, unless an agent has begun."""
        SCRIPTS["forget"](self._client, record=keys.task_record(task_id), all=keys.TASK_STATUS, id=task_id)

    def move(
        self,
        task_id: str,
        to: TaskState,
        *,
        by: AgentInfo | None = None,
        only_from: Collection[TaskState] | None = None,
        step: TaskStep | None = None,
        counts: Literal["succeeded", "failed", ""] = "",
        **fields: str | int | None,
    ) -> dict[str, str]:
        """Put a task into another state and return its account, as :meth:`restore` takes it.

        ``by`` is the agent that writes: it must own the task under its latest incarnation. ``only_from`` narrows the
        states that may be left, ``step`` says more than the state. ``counts`` is what the agent's performance counts
        the end as.
        """
        owner = _written_by(by)
        fields |= {name: redacted(str(text)) for name in _SHOWN if (text := fields.get(name)) is not None}
        values = {name: value for name, value in {**(owner if by else {}), **fields}.items() if value is not None}
        if to.ended:
            values |= signed_end(task_id, to, str(values.get("result", "")))
        outcome, detail, fields_now = SCRIPTS["move"](
            self._client,
            **_changed(task_id),
            performance=keys.AGENT_PERFORMANCE,
            state=to,
            only_from=TaskState if only_from is None else only_from,
            **owner,
            note=fields.get("note"),
            step=step,
            keep_seconds=self._kept_for(to),
            counts=counts if by else "",
            fields=values,
        )
        if outcome == "moved":
            account = _account(fields_now)
            return self._end_unwanted(task_id, account) if to in NOT_BEGUN else account
        if outcome == "missing":
            raise TaskNotFound(f"there is no record of task {task_id}")
        if outcome == "owned":
            raise StaleWriter(
                f"task {task_id} belongs to {detail}; the write of {by.agent_id if by else '?'} is refused"
            )
        if (found := self.find(task_id)) and found.state != detail:  # somebody had written that it has ended
            return self.move(task_id, to, by=by, only_from=only_from, step=step, counts=counts, **fields)
        raise IllegalTransition(f"task {task_id} is {detail} and cannot become {to}")

    def take(self, task_id: str, by: AgentInfo, *, spec: TaskSpec | None = None) -> Taken:
        """Take a task for an agent and write its whole ``spec``.

        :class:`StaleWriter` if a later incarnation of the agent owns the task.
        """
        outcome, detail, fields_now = SCRIPTS["take"](
            self._client,
            **_changed(task_id),
            **signs_of_death(self._settings),
            soft_pins=keys.SOFT_PINS,
            loads=keys.AGENT_LOAD,
            id=task_id,
            **_written_by(by),
            spec=json.dumps(spec.wire()) if spec else "",
            spec_signature=signed_spec(task_id, spec.wire()).get(SPEC_SIGNATURE, "") if spec else "",
        )
        if outcome == "missing":
            raise TaskNotFound(f"there is no record of task {task_id}")
        if outcome == "stale":
            raise StaleWriter(f"task {task_id} belongs to incarnation {detail} of {by.agent_id}, not {by.incarnation}")
        return Taken(Take(outcome), str(detail), _account(fields_now))

    def restore(self, task_id: str, account: Mapping[str, str]) -> bool:
        """Put an account of a task back, unless the broker has a later one; returns whether it was put back."""
        return bool(self._put_back(task_id, account, self._client))

    def restore_many(self, accounts: Mapping[str, Mapping[str, str]]) -> None:
        """:meth:`restore` many accounts in one round trip, by the ids of their tasks."""
        with self._client.pipeline(transaction=False) as pipe:
            for task_id, account in accounts.items():
                self._put_back(task_id, account, pipe)
            pipe.execute()

    def _put_back(self, task_id: str, account: Mapping[str, str], client: redis.Redis) -> Any:
        state = TaskState(account["state"])
        return SCRIPTS["restore"](
            client,
            record=keys.task_record(task_id),
            notices=keys.NOTICES,
            all=keys.TASK_STATUS,
            dead_letters=keys.DEAD_LETTERS,
            together=keys.task_trace(TraceParent.of(account.get("trace"), task_id).trace_id),
            **_demand(account["queue"]),
            id=task_id,
            revision=account["revision"],
            accepted_us=int(account["created_at"]) * 1000,
            keep_seconds=self._kept_for(state),
            keep_together=self._keep_seconds,
            is_dead=state is TaskState.DEAD,
            fields=account,
        )

    def hand_over(
        self, record: TaskRecord, handover: Handover, spec: TaskSpec, *, known: str, queue: str, asker: str | None
    ) -> tuple[str, str, bool]:
        """Ask for a handover and give the task its new spec, if its spec is still the ``known`` one.

        The agent ``asker`` must own the task. Returns the outcome, the owner, and whether the queue is newly demanded.
        """
        words = f"{handover.by} hands it over to {handover.to}" + (f": {handover.note}" if handover.note else "")
        outcome, owner, demanded = SCRIPTS["hand_over"](
            self._client,
            **_changed(record.spec.id),
            **_demand(queue),
            asker=asker,
            known_spec=known,
            spec=json.dumps(spec.wire()),
            spec_signature=signed_spec(record.spec.id, spec.wire()).get(SPEC_SIGNATURE, ""),
            to=handover.to,
            by=handover.by,
            note=handover.note,
            questions=handover.questions,
            pid=handover.pid,
            agent=record.agent,
            node=record.node,
            incarnation=record.incarnation,
            words=words[:_WORDS_KEPT],
        )
        return str(outcome), str(owner), bool(demanded)

    def _kept_for(self, state: TaskState) -> int:
        """For how many seconds a record in this state is kept; 0 for ever."""
        return self._keep_seconds if state.ended and state is not TaskState.DEAD else 0

    def finish(self, result: TaskResult, *, by: AgentInfo | None = None) -> dict[str, str]:
        """End a task with its result; returns its account."""
        note = result.error.message if result.error else None
        return self.move(
            result.task_id, result.status, by=by, counts=result.counts, note=note, result=result.model_dump_json()
        )

    def end_unowned(self, result: TaskResult, *, offline_is_gone: bool = False) -> dict[str, str] | None:
        """End a task that no live agent has; returns its account, or None if it is not ended by this.

        An agent that is merely offline counts as alive unless ``offline_is_gone``.
        """
        text = result.model_dump_json()
        signs = signs_of_death(self._settings)
        if offline_is_gone:
            signs |= {"silence_ms": int(self._settings.offline_seconds * 1000), "goodbye_ms": 0}
        outcome, fields_now = SCRIPTS["end_unowned"](
            self._client,
            **_changed(result.task_id),
            performance=keys.AGENT_PERFORMANCE,
            ended=keys.ENDED_UNOWNED,
            **signs,
            **_written_by(None),
            counts="",
            state=result.status,
            note=result.error.message if result.error else None,
            step="",
            keep_seconds=self._kept_for(result.status),
            fields={"result": text, **signed_end(result.task_id, result.status, text)},
        )
        if outcome == "missing":
            raise TaskNotFound(f"there is no record of task {result.task_id}")
        return _account(fields_now) or None

    def take_ended_unowned(self) -> dict[TaskState, int]:
        """How many tasks :meth:`end_unowned` has ended, by their states, since this was last asked."""
        with self._client.pipeline() as pipe:
            pipe.hgetall(keys.ENDED_UNOWNED)
            pipe.delete(keys.ENDED_UNOWNED)
            counted = pipe.execute()[0]
        return {TaskState(str(state)): int(count) for state, count in counted.items()}

    def overdue(self, now_ms: int) -> list[str]:
        """The tasks whose deadline has passed and that have not ended, as far as is known."""
        return [str(task_id) for task_id in self._client.zrangebyscore(keys.DEADLINES, "-inf", now_ms)]

    def forget_deadline(self, task_id: str) -> None:
        self._client.zrem(keys.DEADLINES, task_id)

    def _end_unwanted(self, task_id: str, account: dict[str, str]) -> dict[str, str]:
        """End a task that was cancelled and that its agent released, instead of having it wait for another agent."""
        if "cancel_requested" not in account:
            return account
        failure = Failure(kind=FailureKind.CANCELLED, message="cancelled before another agent began")
        result = TaskResult(task_id=task_id, status=TaskState.CANCELLED, error=failure)
        return self.end_unowned(result) or account  # if another agent has it already, that one reads the request

    def ownership(self, task_id: str) -> Ownership:
        """The state of a task, for the agent that works on it."""
        names = ("revision", "state", "agent", "node", "incarnation", "cancel_requested", "attempts", "handover")
        revision, state, agent, node, incarnation, cancel, attempts, asked = self._client.hmget(
            keys.task_record(task_id), names
        )
        if state in ENDED and (found := self.find(task_id)) and found.state != state:
            return self.ownership(task_id)  # somebody had written that it has ended
        owner = (str(agent), str(node), number(incarnation)) if state in HELD else None
        place = keys.task_record(task_id)
        handover = None
        if owner and asked:
            handover = self._refused.reading(place, "handover", str(asked), lambda text: read_model(Handover, text))
        if handover and handover.attempt != number(attempts):
            handover = None  # it was handed over already
        return Ownership(number(revision), owner, cancel is not None, handover)

    def _undo_end(self, record: TaskRecord, fields: Mapping[str, str]) -> bool:
        task_id = record.spec.id
        undone = SCRIPTS["undo_end"](
            self._client,
            record=keys.task_record(task_id),
            notices=keys.NOTICES,
            history=keys.task_history(task_id),
            state=record.state,
            signature=fields.get(END_SIGNATURE, ""),
            known=signed_state(task_id, fields),
            at_first=TaskState.PENDING if record.spec.after else TaskState.QUEUED,
        )
        return bool(undone)

    def is_signed_spec(self, record: TaskRecord) -> bool:
        """Whether Torch itself gave the task the spec that it has."""
        signature = self._client.hget(keys.task_record(record.spec.id), SPEC_SIGNATURE)
        return is_signed_spec(record.spec.id, record.spec.wire(), None if signature is None else str(signature))

    def put_spec_back(self, task_id: str, wire: Mapping[str, Any]) -> None:
        self._client.hset(keys.task_record(task_id), "spec", json.dumps(wire))

    def count_redelivery(self, task_id: str) -> None:
        """Count a delivery after the first one, whose worker was lost."""
        self._client.hincrby(keys.task_record(task_id), "deliveries", 1)

    def note_handoff(self, task_id: str, handoff: Handoff, by: AgentInfo) -> None:
        """Note what a successor should know of a running task, as long as the agent owns it."""
        if self.ownership(task_id).owner == by.as_owner:
            self._client.hset(keys.task_record(task_id), "handoff", handoff.model_dump_json())

    def let_expire(self, task_id: str) -> None:
        """Keep the record of a dead task only as long as that of any other ended task."""
        self._client.expire(keys.task_record(task_id), self._keep_seconds)
        self._client.expire(keys.task_history(task_id), self._keep_seconds)

    def request_cancel(self, task_id: str) -> None:
        """Note that the task is cancelled, for the agent that owns it now or later."""
        self._client.hset(keys.task_record(task_id), "cancel_requested", 1)

    def withdraw_cancel(self, task_id: str) -> None:
        self._client.hdel(keys.task_record(task_id), "cancel_requested")

    def prune(self) -> int:
        """Drop expired tasks from the index; returns how many."""
        ids = [str(task_id) for task_id in self._client.zrange(keys.TASK_STATUS, 0, -1)]
        gone = [task_id for task_id in ids if not self._client.exists(keys.task_record(task_id))]
        return int(self._client.zrem(keys.TASK_STATUS, *gone)) if gone else 0


def _account(parts: Iterable[object]) -> dict[str, str]:
    """A record as a script returns it: names and values in turn."""
    words = map(str, parts)
    return dict(zip(words, words, strict=True))


def _written_by(agent: AgentInfo | None) -> dict[str, str | int]:
    if agent is None:
        return {"agent": "", "node": "", "incarnation": 0}
    return {"agent": agent.agent_id, "node": agent.node, "incarnation": agent.incarnation}


def _changed(task_id: str) -> dict[str, str]:
    """Where a script notes that a task has another state."""
    return {"record": keys.task_record(task_id), "history": keys.task_history(task_id), "notices": keys.NOTICES}


def _accepted(answer: Any) -> Accepted:
    outcome, detail, new_queue = answer
    return Accepted(Acceptance(outcome), str(detail), bool(new_queue))


def _demand(queue: str) -> dict[str, Any]:
    """What the scripts need to demand a queue that agents share."""
    return {"demanded": keys.DEMANDED_QUEUES, "queue": queue, "demands": keys.is_task_queue(queue)}


def demanded(client: redis.Redis) -> set[str]:
    """Every queue that a task was sent to so far."""
    return {str(queue) for queue in client.smembers(keys.DEMANDED_QUEUES)}

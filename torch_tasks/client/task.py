"""``Task``: one task, for a program that waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

from torch_tasks import operations
from torch_tasks.errors import BadSignature, TaskNotFinished
from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.handover import Handover
from torch_tasks.model.task import HistoryEntry, Permissions, Priority, TaskRecord, TaskResult, TaskState
from torch_tasks.model.trace import Trace
from torch_tasks.operations.operation import WAIT_SECONDS

_FOLLOW_SECONDS = 1.0
"""How often :meth:`Task.follow` gives the record of a task whose state stays the same."""


class TaskFields(TypedDict, total=False):
    """The fields of a task besides its prompt; see :class:`TaskSpec`."""

    id: str | None
    role: str | None
    skills: Iterable[str]
    agent: str | None
    priority: Priority | str
    workdir: str | Path | None
    timeout: float | None
    deadline: datetime | None
    check: str | None
    check_rounds: int | None
    permissions: Permissions | str | None
    fresh: bool | None
    max_retries: int | None
    title: str | None
    after: str | Task | Iterable[str | Task]
    context: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None


class Task:
    """One task that Torch accepted."""

    def __init__(self, task_id: str, link: Link | None = None) -> None:
        self.id = task_id
        self._link = link or own_link()

    def __repr__(self) -> str:
        return f"<Task {self.id}>"

    @property
    def status(self) -> TaskState:
        """The task's state now."""
        return self.record().state

    @property
    def spooled(self) -> bool:
        """Whether the task waits on this machine's disk, because the broker was away when it was enqueued."""
        return self._link.perform(operations.tasks.is_spooled, self._itself)

    def record(self) -> TaskRecord:
        """The task's record; ``unroutable`` says that it waits and no online agent can do it."""
        return self._link.perform(operations.tasks.get, self._itself)

    def history(self) -> list[HistoryEntry]:
        """The task's history, oldest first."""
        return self._link.perform(operations.tasks.history, self._itself)

    def trace(self) -> Trace:
        """The spans of the task, and of all tasks of its trace: waits, attempts, and what each attempt consists of."""
        return self._link.perform(operations.tasks.trace, self._itself)

    def replay(self) -> None:
        """Queue a dead task again, with all its retries; it keeps its id and history."""
        self._link.perform(operations.tasks.replay, self._itself)

    def result(self, timeout: float | None = None) -> TaskResult:
        """Wait for the task's end, successful or not; :class:`TaskNotFinished` after ``timeout`` seconds.

        ``result().raise_for_status()`` makes anything but success an exception.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            record = self._wait(WAIT_SECONDS, deadline)
            if record.forged:
                raise BadSignature(record.forged)
            if record.state.ended:
                return record.result or TaskResult(task_id=self.id, status=record.state)
            if deadline is not None and time.monotonic() >= deadline:
                raise TaskNotFinished(
                    f"task {self.id} is {record.state} after {describe_duration(timeout or 0)}; it goes on, ask again "
                    "later"
                )

    def follow(self, timeout: float | None = None) -> Iterator[TaskRecord]:
        """The record now, after each change and about once a second, until the task ends or ``timeout`` is over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        record = self.record()
        yield record
        while not record.state.ended and (deadline is None or time.monotonic() < deadline):
            record = self._wait(_FOLLOW_SECONDS, deadline, since=record.state)
            yield record

    def answer(self, reply: str) -> str:
        """Answer the agent's question and return the outcome; :class:`NotAnswered` if the agent did not get it."""
        return self._link.perform(
            operations.tasks.answer, operations.tasks.GiveAnswer.build(task_id=self.id, reply=reply)
        )

    def cancel(self) -> TaskState:
        """End the task at once if no agent has begun it, else interrupt its agent; returns the state before."""
        return self._link.perform(operations.tasks.cancel, self._itself)

    def handoff(self, to: str, note: str = "", questions: Iterable[str] = ()) -> Handover:
        """Interrupt the task's agent and hand the task over to another one, or to any of a role.

        Raises :class:`AgentUnable`, :class:`TaskEnded`, :class:`NotYours` or :class:`InvalidHandover`.
        """
        asked = operations.tasks.HandOver.build(task_id=self.id, to=to, note=note, questions=tuple(questions))
        return self._link.perform(operations.tasks.handoff, asked)

    @property
    def _itself(self) -> operations.tasks.OfTask:
        return operations.tasks.OfTask.build(task_id=self.id)

    def _wait(self, seconds: float, deadline: float | None, since: TaskState | None = None) -> TaskRecord:
        """The record when the task has ended, or left this state, at the latest after so long."""
        if deadline is not None:
            seconds = max(0.0, min(seconds, deadline - time.monotonic()))
        return self._link.perform(
            operations.tasks.wait, operations.tasks.Wait(task_id=self.id, seconds=seconds, since=since)
        )


def ids_of(given: str | Task | Iterable[str | Task]) -> list[str]:
    tasks = [given] if isinstance(given, (str, Task)) else given
    return [one.id if isinstance(one, Task) else one for one in tasks]

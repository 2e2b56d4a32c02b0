"""A person's answer to what an agent asks, taken to the agent and seen to arrive."""

from __future__ import annotations

import time

from torch_tasks.app import ANSWER, app
from torch_tasks.errors import NotAnswered
from torch_tasks.model.task import TaskRecord, TaskState
from torch_tasks.store.tasks import TaskRecords

ANSWERED, NOT_TAKEN = "answered: ", "not taken: "
"""How the history's notes begin that tell what became of an answer."""
_SECONDS = 20.0


class Answer:
    """The answer to one waiting task."""

    def __init__(self, records: TaskRecords, record: TaskRecord) -> None:
        self._records = records
        self._record = record

    def give(self, reply: str) -> str:
        """Tell the agent, and return when it has taken the answer."""
        task_id, agent, node = self._record.spec.id, self._record.agent, self._record.node
        if self._record.state is not TaskState.WAITING or self._record.question is None:
            raise NotAnswered(f"task {task_id} is {self._record.state} and asks nothing")
        before = len(self._records.history(task_id))
        told = app.control.broadcast(
            ANSWER,
            arguments={"task_id": task_id, "reply": reply},
            destination=[f"{agent}@{node}"],
            reply=True,
            timeout=_SECONDS,
            limit=1,
        )
        if not told:
            raise NotAnswered(
                f"the worker of {agent} on {node} does not answer; is it running? See 'torch-tasks agents'"
            )
        if not next(iter(told[0].values()))["ok"]:
            raise NotAnswered(f"{agent} does not work on task {task_id} any more")
        return self._outcome(task_id, before)

    def _outcome(self, task_id: str, before: int) -> str:
        deadline = time.monotonic() + _SECONDS
        for _ in self._records.changes(task_id, deadline):
            for entry in self._records.history(task_id)[before:]:
                if entry.note and entry.note.startswith(ANSWERED):
                    return entry.note
                if entry.note and entry.note.startswith(NOT_TAKEN):
                    raise NotAnswered(f"task {task_id}: {entry.note}")
        raise NotAnswered(f"the agent of task {task_id} got the answer and has not taken it within {_SECONDS:g} s")

"""Reads the records of tasks: nothing in one is taken to be what Torch wrote before it is looked at."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis

from torch_tasks import keys
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.caller import CallerKind
from torch_tasks.errors import TaskNotFound, Unreadable
from torch_tasks.model.asker import Asker
from torch_tasks.model.denial import Denial
from torch_tasks.model.reader import number
from torch_tasks.model.task import HistoryEntry, TaskRecord, TaskState
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.store.denials import Denials
from torch_tasks.store.ids import ids_beginning, near_ids
from torch_tasks.store.signed_records import why_not_ended
from torch_tasks.store.task_fields import history_entry, record_of, state_of
from torch_tasks.store.task_outcomes import Outline

_PAGE = 200
"""How many records are read at a time where only some of them are wanted."""


class TaskReader(ABC):
    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._refused = RefusedLetters(client)

    def account(self, task_id: str) -> dict[str, str]:
        """All that a record holds, as :meth:`restore` takes it; empty if there is none."""
        return self.accounts([task_id])[0]

    def accounts(self, task_ids: Iterable[str]) -> list[dict[str, str]]:
        with self._client.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.hgetall(keys.task_record(task_id))
            return list(pipe.execute())

    def get(self, task_id: str) -> TaskRecord:
        record = self.find(task_id)
        if record is None:
            near = near_ids(self._client, keys.TASK_STATUS, task_id)
            raise TaskNotFound(f"there is no record of task {task_id}: a wrong id, or it ended too long ago{near}")
        return record

    def find(self, task_id: str) -> TaskRecord | None:
        """The record of a task; None if there is none, or none that can be read: that is among the dead letters.

        An end that no node signed is undone, as far as is known what was before; else the record says that it is
        forged.
        """
        return self.believed(task_id, self.account(task_id))

    def believed(self, task_id: str, fields: Mapping[str, str]) -> TaskRecord | None:
        """:meth:`find` for what a record was just found to hold."""
        record = self._readable(task_id, fields)
        if record and record.state.ended and (why := why_not_ended(task_id, fields)):
            return self._disbelieved(record, fields, why)
        return record

    def _disbelieved(self, record: TaskRecord, fields: Mapping[str, str], why: str) -> TaskRecord:
        task_id = record.spec.id
        if self._refused.note(keys.task_record(task_id), "", json.dumps(fields), why):
            unknown = Asker(kind=CallerKind.PROGRAM, name="unknown")
            Denials(self._client).note(Denial(operation="task.end", by=unknown, why=why))
        undone = False
        with suppress(redis.ResponseError):  # a viewer may write nothing
            undone = self._undo_end(record, fields)
        mended = self._readable(task_id, self.account(task_id)) if undone else None
        return mended or record.model_copy(update={"forged": why})

    @abstractmethod
    def _undo_end(self, record: TaskRecord, fields: Mapping[str, str]) -> bool:
        """Undo the end in a record, as far as it is known what was before; returns whether it was."""

    def find_all(self, task_ids: Iterable[str]) -> list[TaskRecord | None]:
        """:meth:`find` each of these tasks, in their order."""
        ids = list(task_ids)
        return list(map(self.believed, ids, self.accounts(ids)))

    def _readable(self, task_id: str, fields: Mapping[str, str]) -> TaskRecord | None:
        if not fields:
            return None
        try:
            return record_of(fields)
        except Unreadable as error:
            self._refused.note(keys.task_record(task_id), "", json.dumps(fields), str(error))
            return None

    def set_aside_unreadable(self, task_id: str) -> None:
        """Move a record that cannot be read to the dead letters, so that a task of this id can be accepted anew."""
        fields = self.account(task_id)
        try:
            if fields:
                record_of(fields)
        except Unreadable as error:
            self._refused.set_aside(keys.task_record(task_id), fields, str(error))

    def state(self, task_id: str) -> TaskState | None:
        return state_of(self._client.hget(keys.task_record(task_id), "state"))

    def known(self, task_ids: Sequence[str]) -> list[str]:
        """Those of these that are among all tasks, by one command; a record that has expired may still be counted."""
        scores = self._client.zmscore(keys.TASK_STATUS, list(task_ids)) if task_ids else []
        return [task_id for task_id, score in zip(task_ids, scores, strict=True) if score is not None]

    def outlines(self, task_ids: Iterable[str]) -> list[Outline | None]:
        """How far these tasks are, in their order; None where there is no record."""
        with self._client.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.hmget(keys.task_record(task_id), "state", "queue", "revision")
            return [
                Outline(known, str(queue or ""), number(revision)) if (known := state_of(state)) else None
                for state, queue, revision in pipe.execute()
            ]

    def history(self, task_id: str) -> list[HistoryEntry]:
        return self.histories([task_id])[0]

    def histories(self, task_ids: Sequence[str], latest: int = 0) -> list[list[HistoryEntry]]:
        """The histories of these tasks, in their order; if ``latest`` is given, of each only so many entries."""
        with self._client.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.lrange(keys.task_history(task_id), -latest, -1)
            return [self._entries(task_id, lines) for task_id, lines in zip(task_ids, pipe.execute(), strict=True)]

    def _entries(self, task_id: str, lines: Iterable[Any]) -> list[HistoryEntry]:
        place = keys.task_history(task_id)
        found = (self._refused.reading(place, "", str(line), history_entry) for line in lines)
        return [entry for entry in found if entry]

    def together(self, trace_id: str) -> list[str]:
        """The tasks of a trace, in the order in which they were accepted."""
        return [str(one) for one in self._client.zrange(keys.task_trace(trace_id), 0, -1)]

    def place_in_trace(self, task_id: str) -> TraceParent:
        """The trace of a task, for what happens within it."""
        return TraceParent.of(self._client.hget(keys.task_record(task_id), "trace"), task_id).under(task_id)

    def latest(self, limit: int, states: Collection[TaskState] = ()) -> list[TaskRecord]:
        """The records accepted last, newest first; only those in one of these states, if any are given."""
        found: list[TaskRecord] = []
        start, page = 0, max(limit, _PAGE) if states else limit
        while len(found) < limit and (ids := self._client.zrevrange(keys.TASK_STATUS, start, start + page - 1)):
            names = [str(task_id) for task_id in ids]
            records = map(self.believed, names, self.accounts(names))
            found += [record for record in records if record and (not states or record.state in states)]
            start += page
        return found[:limit]

    def ids_beginning(self, beginning: str) -> list[str]:
        """The ids with this beginning; only the id itself if it is complete."""
        return ids_beginning(self._client, keys.TASK_STATUS, beginning)

    def changes(self, task_id: str, deadline: float | None = None) -> Iterator[TaskState | None]:
        """The state now and after each change, until the monotonic ``deadline``; read at least once a second."""
        with self._client.pubsub() as notices:  # type: ignore[no-untyped-call]
            while True:
                yield self.state(task_id)
                left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
                if left <= 0:
                    return
                if notices.subscribed:
                    notices.get_message(timeout=left)
                else:  # then look again: it may have changed meanwhile
                    notices.subscribe(keys.task_record(task_id))

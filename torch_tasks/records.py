"""The task records: every statement that reads or writes one.

A record changes only along :data:`~torch_tasks.models.TRANSITIONS` and only by whoever owns the task; both are
checked on the broker, in the script that writes.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker import NOW
from torch_tasks.errors import IllegalTransition, StaleWriter, TaskNotFound
from torch_tasks.models import ENDED, HELD, AgentInfo, TaskRecord, TaskResult, TaskState

_ACCEPT = (
    NOW
    + """
local demanded = 0
if ARGV[4] == '1' then demanded = redis.call('SADD', KEYS[3], ARGV[3]) end
if redis.call('EXISTS', KEYS[1]) == 1 then return {0, demanded} end
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'state', 'queued', 'queue', ARGV[3], 'created_at', now, 'attempts', 0)
redis.call('ZADD', KEYS[2], t[1] * 1000000 + t[2], ARGV[1])
return {1, demanded}
"""
)

# ARGV: wanted state, states it may follow, '' or the owner, the owner's incarnation, owning states, time-stamp field
# or '', seconds to live or 0, then field/value pairs.
_MOVE = (
    NOW
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'missing', ''} end
local owner = redis.call('HGET', KEYS[1], 'agent') or ''
local fence = tonumber(redis.call('HGET', KEYS[1], 'incarnation') or '0')
if ARGV[3] ~= '' and string.find(ARGV[5], ' ' .. state .. ' ', 1, true) then
  if owner ~= ARGV[3] then return {'owned', owner} end
  if fence > tonumber(ARGV[4]) then return {'owned', owner .. ' (incarnation ' .. string.format('%d', fence) .. ')'} end
end
if not string.find(ARGV[2], ' ' .. state .. ' ', 1, true) then return {'illegal', state} end
redis.call('HSET', KEYS[1], 'state', ARGV[1])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], ARGV[6], now) end
for i = 8, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if tonumber(ARGV[7]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[7]) else redis.call('PERSIST', KEYS[1]) end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return {'moved', state}
"""
)

_MOMENTS = {TaskState.ASSIGNED: "assigned_at", TaskState.RUNNING: "started_at"} | dict.fromkeys(ENDED, "finished_at")


def _listed(states: Iterable[TaskState]) -> str:
    return f" {' '.join(sorted(states))} "


class Accepted(NamedTuple):
    """What accepting a task brought about."""

    new_record: bool
    new_queue: bool


class TaskRecords:
    """The records of all tasks on one broker."""

    def __init__(self, client: redis.Redis, *, keep_days: float) -> None:
        self._client = client
        self._keep_seconds = int(keep_days * 86400)
        self._accept = client.register_script(_ACCEPT)
        self._move = client.register_script(_MOVE)

    def accept(self, task_id: str, wire: Mapping[str, Any], queue: str) -> Accepted:
        """Write the record of a new task and demand its queue; a record that is there already stays as it is."""
        new_record, new_queue = self._accept(
            keys=[keys.task_record(task_id), keys.TASK_STATUS, keys.DEMANDED_QUEUES],
            args=[task_id, json.dumps(wire), queue, int(keys.is_task_queue(queue))],
        )
        return Accepted(bool(new_record), bool(new_queue))

    def forget(self, task_id: str) -> None:
        """Take back a record whose task could not be published."""
        with self._client.pipeline() as pipe:
            pipe.delete(keys.task_record(task_id))
            pipe.zrem(keys.TASK_STATUS, task_id)
            pipe.execute()

    def move(
        self,
        task_id: str,
        to: TaskState,
        *,
        by: AgentInfo | None = None,
        only_from: Collection[TaskState] | None = None,
        **fields: str | int | None,
    ) -> TaskState:
        """Put a task into another state and return the one it left.

        ``by`` is the agent that writes: it must own the task (or take it, from a state in which nobody does) and must
        not have been succeeded by a later incarnation. ``only_from`` narrows the states that may be left.
        """
        owner: dict[str, str | int] = (
            {"agent": by.agent_id, "node": by.node, "incarnation": by.incarnation} if by else {}
        )
        values = {name: value for name, value in {**owner, **fields}.items() if value is not None}
        outcome, detail = self._move(
            keys=[keys.task_record(task_id)],
            args=[
                to,
                _listed(to.sources if only_from is None else to.sources & set(only_from)),
                by.agent_id if by else "",
                by.incarnation if by else 0,
                _listed(HELD),
                _MOMENTS.get(to, ""),
                self._keep_seconds if to.ended else 0,
                *itertools.chain.from_iterable(values.items()),
            ],
        )
        if outcome == "moved":
            return TaskState(detail)
        if outcome == "missing":
            raise TaskNotFound(f"there is no record of task {task_id}")
        if outcome == "owned":
            raise StaleWriter(f"task {task_id} belongs to {detail}; what {by.agent_id if by else '?'} wrote is refused")
        raise IllegalTransition(f"task {task_id} is {detail} and cannot become {to}")

    def finish(self, result: TaskResult, *, by: AgentInfo | None = None) -> None:
        """End a task with its result."""
        self.move(result.task_id, result.status, by=by, result=result.model_dump_json())

    def request_cancel(self, task_id: str) -> None:
        """Tell whoever holds the task, now or later, that it is not wanted any more."""
        self._client.hset(keys.task_record(task_id), "cancel_requested", 1)

    def cancel_requested(self, task_id: str) -> bool:
        """Somebody asked for the task's end."""
        return bool(self._client.hexists(keys.task_record(task_id), "cancel_requested"))

    def get(self, task_id: str) -> TaskRecord:
        """One record, or :class:`TaskNotFound`."""
        record = self.find(task_id)
        if record is None:
            raise TaskNotFound(f"there is no record of task {task_id}: a wrong id, or it ended too long ago")
        return record

    def find(self, task_id: str) -> TaskRecord | None:
        """One record, if there is one."""
        fields = self._client.hgetall(keys.task_record(task_id))
        return _record({str(name): str(value) for name, value in fields.items()}) if fields else None

    def state(self, task_id: str) -> TaskState | None:
        """The state alone; nothing if there is no record."""
        value = self._client.hget(keys.task_record(task_id), "state")
        return TaskState(str(value)) if value else None

    def latest(self, limit: int) -> list[TaskRecord]:
        """The records accepted last, newest first."""
        ids = self._client.zrevrange(keys.TASK_STATUS, 0, limit - 1)
        with self._client.pipeline(transaction=False) as pipe:
            for task_id in ids:
                pipe.hgetall(keys.task_record(str(task_id)))
            return [_record(fields) for fields in pipe.execute() if fields]

    def changes(self, task_id: str, deadline: float | None = None) -> Iterator[TaskState | None]:
        """The state now and after each change, until the monotonic ``deadline``.

        The state is read at least once a second, so that a lost notice costs no more than that.
        """
        with self._client.pubsub() as notices:  # type: ignore[no-untyped-call]
            notices.subscribe(keys.task_record(task_id))
            while True:
                yield self.state(task_id)
                left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
                if left <= 0:
                    return
                notices.get_message(timeout=left)

    def prune(self) -> int:
        """Drop from the index what has expired; returns how many."""
        ids = [str(task_id) for task_id in self._client.zrange(keys.TASK_STATUS, 0, -1)]
        gone = [task_id for task_id in ids if not self._client.exists(keys.task_record(task_id))]
        return int(self._client.zrem(keys.TASK_STATUS, *gone)) if gone else 0


def _record(fields: Mapping[str, str]) -> TaskRecord:
    values: dict[str, Any] = dict(fields)
    values["spec"] = json.loads(fields["spec"])
    for name in ("created_at", "assigned_at", "started_at", "finished_at"):
        if name in fields:
            values[name] = datetime.fromtimestamp(int(float(fields[name])) / 1000, UTC)
    if "result" in fields:
        values["result"] = json.loads(fields["result"])
    return TaskRecord.model_validate(values)

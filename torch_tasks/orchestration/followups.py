"""Follow-ups: check-ins by which the manager looks after long-running tasks; and tasks that make no progress."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta

from pydantic import AwareDatetime

from torch_tasks import keys
from torch_tasks.caller import OPERATOR
from torch_tasks.communication.policy import Policy, manager_of
from torch_tasks.errors import CheckinNotFound, InvalidCheckin
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.checkin import Checkin, CheckinState, Every, Target
from torch_tasks.model.durations import local_time
from torch_tasks.model.fields import AgentId, Model, Seconds, TaskId
from torch_tasks.model.reader import read_model
from torch_tasks.model.task import TaskRecord, TaskState

log = logging.getLogger(__name__)

_LOOK_SECONDS = 30.0
_SHORTEST_SECONDS = 60.0
"""A task needs no follow-up until it has run for this long, or for half an interval."""
_LENGTHS = (1800.0, 7200.0, 28800.0)
"""The expected lengths up to which each of the policy's intervals applies; the last one applies beyond."""
_UNKNOWN_LENGTH = 1800.0


class FollowedTask(Model):
    """A long-running task, and since when it has made no progress."""

    task: TaskId
    agent: AgentId
    every: Seconds
    """How often the manager should look after it."""
    looks: str
    """A digest of its record and its pane; empty until its pane was read."""
    since: AwareDatetime
    """Since when the digest has been the same."""
    ours: bool
    """It has a follow-up, for its agent has no check-in of its own."""

    def __str__(self) -> str:
        return f"{self.agent} (task {self.task}, since {local_time(self.since)})"

    def stands_still(self, now: datetime) -> bool:
        """It has made no progress for one interval."""
        return bool(self.looks) and now - self.since >= timedelta(seconds=self.every)


def followup_id(task_id: str) -> str:
    return f"followup-{task_id}"[:128]


def pause_between_looks(rules: Policy) -> float:
    minutes = rules.followup_minutes if rules.enabled else ()
    return min(_LOOK_SECONDS, 60 * min(minutes, default=1) / 4)


def follow_up(fleet: Fleet, rules: Policy) -> None:
    """Give each long-running task a follow-up, and note whether it makes progress."""
    minutes = rules.followup_minutes if rules.enabled else ()
    known = {one.task: one for one in followed(fleet)}
    agents = fleet.registry.agents() if minutes else []
    running = {record.spec.id: (record, info) for record, info in tasks_of(fleet, agents, TaskState.RUNNING)}
    for task_id in known.keys() - running.keys():
        if known[task_id].ours:
            _remove_followup(fleet, task_id)
        fleet.client.hdel(keys.FOLLOWUPS, task_id)
    others = _with_own_checkins(fleet, running)
    now = fleet.checkins.now()
    for task_id, (record, info) in running.items():
        every = 60 * minutes[min(bisect_left(_LENGTHS, _expected(record, info, agents)), len(minutes) - 1)]
        begun = record.started_at or record.assigned_at or record.created_at
        if task_id not in known and now - begun < timedelta(seconds=min(_SHORTEST_SECONDS, every / 2)):
            continue
        one = FollowedTask(
            task=task_id, agent=info.agent_id, every=every, looks=_looks(record), since=now, ours=task_id not in others
        )
        before = known.get(task_id)
        if before and before.looks == one.looks:
            one = one.model_copy(update={"since": before.since})
        if one.ours and not (before and before.ours):
            manager = manager_of(agents, rules.hub.manager, info.agent_id)
            _add_followup(fleet, record, one, begun, manager.agent_id if manager else OPERATOR)
        elif before and before.ours and not one.ours:
            _remove_followup(fleet, task_id)
        if one != before:
            fleet.client.hset(keys.FOLLOWUPS, task_id, one.model_dump_json())


def followed(fleet: Fleet) -> list[FollowedTask]:
    """The long-running tasks, as of the last :func:`follow_up`."""
    known = {str(task): str(text) for task, text in fleet.client.hgetall(keys.FOLLOWUPS).items()}
    return list(fleet.refused.readable(keys.FOLLOWUPS, known, lambda _, text: read_model(FollowedTask, text)).values())


def standing_still(fleet: Fleet) -> list[FollowedTask]:
    """Those that have made no progress for an interval."""
    now = fleet.checkins.now()
    return [one for one in followed(fleet) if one.stands_still(now)]


def note_own_checkin(fleet: Fleet, task_id: str, checkin_id: str) -> None:
    """Note a check-in for the agent of this task: while it is active, the task needs no follow-up."""
    fleet.client.hset(keys.LOOKED_AFTER, task_id, checkin_id)


def _with_own_checkins(fleet: Fleet, running: Collection[str]) -> set[str]:
    """The tasks whose agents have a check-in that a person or a program made."""
    found = set()
    for task_id, checkin_id in fleet.client.hgetall(keys.LOOKED_AFTER).items():
        if task_id in running and _is_active(fleet, str(checkin_id)):
            found.add(str(task_id))
        else:
            fleet.client.hdel(keys.LOOKED_AFTER, task_id)
    return found


def _is_active(fleet: Fleet, checkin_id: str) -> bool:
    try:
        return fleet.checkins.get(checkin_id).state is CheckinState.ACTIVE
    except (CheckinNotFound, InvalidCheckin):
        return False


def tasks_of(fleet: Fleet, agents: Iterable[AgentInfo], state: TaskState) -> Iterator[tuple[TaskRecord, AgentInfo]]:
    """The tasks in this state that these agents own."""
    for info in agents:
        record = fleet.records.find(info.current_task) if info.current_task else None
        if record and record.state is state and record.agent == info.agent_id:
            yield record, info


def _expected(record: TaskRecord, info: AgentInfo, agents: Iterable[AgentInfo]) -> float:
    """How long the task may take: its timeout, or the mean of its role's tasks so far."""
    return record.spec.timeout or mean_task_seconds(info.role, agents, _UNKNOWN_LENGTH)


def mean_task_seconds(role: str, agents: Iterable[AgentInfo], unknown: float) -> float:
    """The mean length of this role's tasks; ``unknown`` if none has ended yet."""
    known = [agent.performance_metrics for agent in agents if agent.role == role]
    ended = sum(metrics.succeeded + metrics.failed for metrics in known)
    return sum(metrics.seconds for metrics in known) / ended if ended else unknown


def _looks(record: TaskRecord) -> str:
    """A digest of what changes with progress: the pane's words, the diff, the agent's note; not clocks and spinners."""
    noted = record.handoff
    if noted is None:
        return ""
    shown = re.sub(r"[^\w\n]|\d", "", noted.screen)
    parts = (record.attempts, record.note, noted.branch, noted.diff, shown)
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _add_followup(fleet: Fleet, record: TaskRecord, one: FollowedTask, begun: datetime, manager: str) -> None:
    title = record.spec.title.replace("{", "(").replace("}", ")")  # so that it has no placeholders
    note = (
        f"{one.agent} has worked on task {one.task} since {local_time(begun)}: {title}\n"
        f"See how far it is (torch-tasks task {one.task}; torch-tasks screen {one.agent}); if it is stuck, help it "
        f'(torch-tasks send {one.agent} "…") or hand the task over (torch-tasks handoff {one.task} …).'
    )
    schedule = Every(seconds=one.every, start=begun + timedelta(seconds=one.every))
    target, checkin_id = Target(agent=manager), followup_id(one.task)
    fleet.checkins.add(Checkin(id=checkin_id, note=note, target=target, schedule=schedule, sender=one.agent))
    log.info("task %s runs for long: %s looks after it every %g min", one.task, manager, one.every / 60)


def _remove_followup(fleet: Fleet, task_id: str) -> None:
    with contextlib.suppress(CheckinNotFound):
        fleet.checkins.remove(followup_id(task_id))

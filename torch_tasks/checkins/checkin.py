"""A check-in, and what became of each of its times."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from torch_tasks.checkins.schedules import Schedule
from torch_tasks.errors import InvalidCheckin
from torch_tasks.fields import AgentId, JsonObject, Role, TaskId, Text, readable
from torch_tasks.models import Model, TaskSpec


class Misfire(StrEnum):
    """What becomes of the slots that passed while no beat ran."""

    ONCE = "once"
    """The latest fires, and its note says how late it is; the others are recorded as skipped."""
    SKIP = "skip"
    """None fires; each is recorded as skipped."""
    ALL = "all"
    """Each fires."""


class Busy(StrEnum):
    """What becomes of a fire whose receiver works."""

    IDLE = "idle"
    """It waits until the receiver has nothing to do; a later fire of the same check-in takes its place."""
    NOW = "now"
    """The receiver gets it while it works, if it takes texts then."""
    SKIP = "skip"
    """It is left out, and recorded so."""


class CheckinState(StrEnum):
    """Whether a check-in comes up."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"
    """It has no slot left."""


class Target(Model):
    """Whom a check-in is for: an agent, all of a role, all who work in a project, or whoever takes a task."""

    agent: AgentId | None = None
    role: Role | None = None
    project: Text | None = None
    task: JsonObject | None = None
    """The fields of the task that each fire enqueues; its prompt is the note."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError("names " + (" and ".join(named) or "nobody") + "; name one of agent, role, project, task")
        return self

    def __str__(self) -> str:
        if self.task is not None:
            whom = self.task.get("agent") or self.task.get("role") or "any agent"
            return f"a task for {whom}"
        return self.agent or (f"all of role {self.role}" if self.role else f"all in {self.project}")


class Checkin(Model):
    """What is asked for; where it stands is its :class:`CheckinRecord`."""

    id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex[:12])
    note: Text
    target: Target
    schedule: Schedule
    sender: AgentId
    """Who asked for it: an agent, or the person at the command line."""
    when: Busy = Busy.IDLE
    misfire: Misfire = Misfire.ONCE
    jitter: float = Field(0.0, ge=0, le=86400, allow_inf_nan=False)
    """Each fire is up to so many seconds later than its slot."""
    ends: AwareDatetime | None = None
    max_runs: int | None = Field(None, gt=0)
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if self.target.task is not None:
            TaskSpec.build(**{**self.target.task, "prompt": self.note})
        return self

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A check-in from what somebody typed, or :class:`InvalidCheckin` in words."""
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            raise InvalidCheckin(f"this check-in cannot be kept: {readable(error)}") from None

    def slot_after(self, moment: datetime) -> datetime | None:
        """Its first slot later than this moment, if it has one."""
        slot = self.schedule.after(moment)
        return None if slot is None or (self.ends and slot > self.ends) else slot


class CheckinRecord(Model):
    """A check-in and where it stands."""

    checkin: Checkin
    state: CheckinState = CheckinState.ACTIVE
    slot: AwareDatetime | None = None
    """Its next slot; none if it has ended."""
    due: AwareDatetime | None = None
    """When that slot fires: the slot and its jitter."""
    runs: int = 0
    """How many slots have fired."""
    version: int = 1
    """Grows with each change that somebody made to it."""


class Outcome(StrEnum):
    """What became of one slot."""

    FIRED = "fired"
    """Beat has given it to the fleet."""
    SENT = "sent"
    """Its messages are in their inboxes, or its task is accepted."""
    SKIPPED = "skipped"
    """Nobody gets it; the note says why."""
    REFUSED = "refused"
    """Nobody can get it; the note says why."""


class Fire(Model):
    """One slot of a check-in and what became of it."""

    checkin_id: TaskId
    slot: AwareDatetime
    outcome: Outcome
    at: AwareDatetime
    """When this was the outcome."""
    late: float = 0.0
    """Seconds between when it was due and when it was fired."""
    note: str = ""
    celery_id: str = ""
    """The Celery task ``torch.checkin`` that brought it."""
    messages: tuple[TaskId, ...] = ()
    task: TaskId | None = None
    """The task it enqueued."""

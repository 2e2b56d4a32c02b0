"""Check-ins: notes that come up once, at intervals, or as cron says. Their times are called slots."""

from __future__ import annotations

import json
import random
import uuid
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from torch_tasks import keys
from torch_tasks.errors import InvalidCheckin, InvalidTask
from torch_tasks.model.asker import Asker
from torch_tasks.model.durations import describe_duration, local_time
from torch_tasks.model.fields import (
    AgentId,
    JsonObject,
    Model,
    Role,
    Seconds,
    TaskId,
    Text,
    not_blank,
    readable,
    title_of,
)
from torch_tasks.model.message import MessageState
from torch_tasks.model.task import TaskSpec, TaskState
from torch_tasks.model.traceparent import PlaceInTrace, TraceParent


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(
            f"{name!r} is not a time zone that this machine knows; write 'Europe/Berlin' or 'UTC', for example"
        ) from None
    return name


def _in_whole_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


TimeZone = Annotated[str, AfterValidator(_time_zone)]
#: A time as exact as the broker counts.
Moment = Annotated[AwareDatetime, AfterValidator(_in_whole_ms)]


class At(Model):
    """Once."""

    kind: Literal["at"] = "at"
    at: Moment

    def after(self, moment: datetime) -> datetime | None:
        return self.at if self.at > moment else None

    def __str__(self) -> str:
        return f"once, {local_time(self.at)}"


class Every(Model):
    """At equal intervals from a start; the start is the first slot."""

    kind: Literal["every"] = "every"
    seconds: Annotated[Seconds, AfterValidator(lambda seconds: round(seconds, 3))] = Field(ge=1)
    start: Moment

    def after(self, moment: datetime) -> datetime | None:
        if moment < self.start:
            return self.start
        gone = int((moment - self.start) / timedelta(seconds=self.seconds))
        slot = self.start + timedelta(seconds=self.seconds) * gone
        while slot <= moment:  # what floats round away
            slot += timedelta(seconds=self.seconds)
        return slot

    def __str__(self) -> str:
        return f"every {describe_duration(self.seconds)}"


class Cron(Model):
    """By a line of cron, in the local time of a time zone.

    A time that the change to summer time leaves out comes right after the gap; one that happens twice comes once.
    """

    kind: Literal["cron"] = "cron"
    expression: str
    timezone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _comes_up(self) -> Cron:
        try:
            next(self._from(datetime.now(UTC)))
        except (CronSimError, StopIteration) as error:
            raise ValueError(
                f"{self.expression!r} is not a cron line that ever comes up ({error}); "
                "write minute hour day month weekday, as '0 9 * * 1-5'"
            ) from None
        return self

    def after(self, moment: datetime) -> datetime | None:
        """The first slot later than this moment, in UTC: local time jumps."""
        slot = next(self._from(moment), None)
        return slot.astimezone(UTC) if slot else None

    def _from(self, moment: datetime) -> CronSim:
        return CronSim(self.expression, moment.astimezone(ZoneInfo(self.timezone)))

    def __str__(self) -> str:
        return f"cron {self.expression} {self.timezone}"


Schedule = Annotated[At | Every | Cron, Field(discriminator="kind")]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Misfire(StrEnum):
    """What happens to the slots that passed while no beat ran."""

    ONCE = "once"
    """The latest fires, and its note says how late it is; the others are recorded as skipped."""
    SKIP = "skip"
    """None fires; each is recorded as skipped."""
    ALL = "all"
    """Each fires."""


class Busy(StrEnum):
    """What happens to a fire whose receiver works."""

    IDLE = "idle"
    """It waits until the receiver is idle; a later fire of the same check-in takes its place."""
    NOW = "now"
    """The receiver gets it while it works, if it takes texts then."""
    SKIP = "skip"
    """It is left out and recorded as skipped."""


class CheckinState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"
    """It has no slot left."""
    ASIDE = "aside"
    """It cannot be read and never fires until it is removed or added again."""


class PaneTarget(Model):
    """A pane of a user's own tmux server, on the machine of one node worker."""

    node: str
    socket: Text
    """The tmux server's socket."""
    target: Text
    """What the user calls it: ``session``, ``session:window[.pane]``, or an id, such as ``%3``."""
    server: int | None = None
    """The server's process, if the target is an id: a later server gives the same ids to other panes."""

    def __str__(self) -> str:
        return f"pane {self.target} on {self.node}"


class Target(Model):
    """The receiver of a check-in: an agent, all of a role, all in a project, the one that takes a task, or a pane."""

    agent: AgentId | None = None
    role: Role | None = None
    project: Text | None = None
    task: JsonObject | None = None
    """The fields of the task that each fire enqueues; its prompt is the note."""
    pane: PaneTarget | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"names {' and '.join(named) or 'no receiver'}; name one of {known}")
        return self

    @property
    def queue(self) -> str:
        """The queue of the node workers that may bring it: all, or the one on the pane's machine."""
        return keys.node_queue(self.pane.node) if self.pane else keys.SYSTEM_QUEUE

    @property
    def receiver(self) -> str | None:
        """The one agent that it is for, itself or its task."""
        wanted = self.agent or (self.task or {}).get("agent")
        return str(wanted) if wanted else None

    def __str__(self) -> str:
        if self.task is not None:
            whom = self.task.get("agent") or self.task.get("role") or "any agent"
            return f"a task for {whom}"
        if self.pane is not None:
            return str(self.pane)
        return self.agent or (f"all of role {self.role}" if self.role else f"all in {self.project}")


class Checkin(Model):
    """A check-in as it was asked for; :class:`CheckinRecord` says where it stands."""

    id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex[:12])
    note: Annotated[Text, not_blank("say what is to be looked at")]
    target: Target
    schedule: Schedule
    sender: AgentId
    """The agent or person that asked for it."""
    asked_by: Asker | None = None
    """Who said last what it does: the tasks that it enqueues are enqueued with the rights of that one."""
    when: Busy = Busy.IDLE
    misfire: Misfire = Misfire.ONCE
    jitter: float = Field(0.0, ge=0, le=86400, allow_inf_nan=False)
    """Each fire is up to so many seconds later than its slot."""
    ends: AwareDatetime | None = None
    max_runs: int | None = Field(None, gt=0)
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    traceparent: PlaceInTrace = None
    """Under which span it was asked for or changed last, if that was within a trace."""
    signature: str | None = None
    """Of who had it kept or changed it last, over all the rest."""

    @model_validator(mode="after")
    def _is_valid_task(self) -> Self:
        if self.target.task is not None:
            try:
                TaskSpec.build(**{**self.target.task, "prompt": self.note})
            except InvalidTask as error:
                raise ValueError(str(error)) from None
        return self

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A check-in of these fields, or :class:`InvalidCheckin` that says what is wrong with them."""
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            raise InvalidCheckin(f"this check-in cannot be kept: {readable(error)}") from None

    def slot_after(self, moment: datetime) -> datetime | None:
        slot = self.schedule.after(moment)
        return None if slot is None or (self.ends and slot > self.ends) else slot

    def due(self, slot: datetime) -> datetime:
        """When a slot fires: always the same for the same slot."""
        if not self.jitter:
            return slot
        dice = random.Random(f"{self.id} {milliseconds(slot)}")  # noqa: S311 - spreads fires, keeps no secret
        return slot + timedelta(seconds=dice.uniform(0, self.jitter))

    @property
    def title(self) -> str:
        return title_of(self.note)

    def signed_text(self) -> str:
        """Everything that it says, in one form."""
        left_out = {"signature"} if self.traceparent else {"signature", "traceparent"}
        return json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)


class SlotOutcome(StrEnum):
    DUE = "due"
    """A caller asked for it at once; beat has not published it yet."""
    FIRED = "fired"
    """Beat has published it."""
    SENT = "sent"
    """Its messages are in the inboxes, or its task is accepted."""
    SKIPPED = "skipped"
    """It was left out; the note says why."""
    REFUSED = "refused"
    """No receiver can get it; the note says why."""

    @property
    def rank(self) -> int:
        """A higher rank replaces a lower one, never the reverse."""
        return {SlotOutcome.DUE: 0, SlotOutcome.FIRED: 1}.get(self, 2)

    @property
    def open(self) -> bool:
        return self.rank < SlotOutcome.SENT.rank


class Receipt(Model):
    agent: AgentId
    message: TaskId | None = None
    note: str = ""
    """Why it gets nothing, or that it is offline."""
    state: MessageState | None = None
    """How far the message is at this moment."""


class Fire(Model):
    """One slot of a check-in and its outcome; or several in a row that were all skipped."""

    checkin_id: TaskId
    slot: AwareDatetime
    outcome: SlotOutcome
    at: AwareDatetime
    """When this was the outcome."""
    late: float = 0.0
    """Seconds between when it was due and when it was fired."""
    note: str = ""
    count: int = 1
    """How many slots this stands for; ``slot`` is the last of them."""
    since: AwareDatetime | None = None
    """The first of them, if there are several."""
    celery_id: TaskId | None = None
    """The Celery task ``torch.checkin`` that brought it."""
    receipts: tuple[Receipt, ...] = ()
    task: TaskId | None = None
    task_state: TaskState | None = None
    """How far that is at this moment."""


class CheckinRecord(Model):
    checkin: Checkin
    state: CheckinState = CheckinState.ACTIVE
    slot: AwareDatetime | None = None
    """Its next slot; none if it has ended."""
    due: AwareDatetime | None = None
    """When that slot fires: the slot and its jitter."""
    runs: int = 0
    version: int = 1
    """Grows with each change that was made to it."""
    last: Fire | None = None


def milliseconds(moment: datetime) -> int:
    """A moment as the broker counts; it identifies a slot."""
    return int((moment - _EPOCH) / timedelta(milliseconds=1))


def moment_of(ms: float) -> datetime:
    """The moment at which :func:`milliseconds` counts so many."""
    return _EPOCH + timedelta(milliseconds=ms)


def derived_id(checkin_id: str, slot: datetime, whom: str = "") -> str:
    """The id of what a slot causes: the same however often the slot fires, so that it happens once."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{checkin_id} {milliseconds(slot)} {whom}".rstrip()).hex


def fire_span(celery_id: str) -> TraceParent:
    """The span of one fire, for what it leads to: each fire begins a trace of its own."""
    return TraceParent.new(celery_id).under(celery_id)

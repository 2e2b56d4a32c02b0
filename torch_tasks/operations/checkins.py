"""The operations on check-ins."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from torch_tasks.caller import CallerKind, caller
from torch_tasks.checkins import times
from torch_tasks.checkins.book import AcceptedCheckin, CheckinBook, all_checkins
from torch_tasks.checkins.readiness import Readiness, readiness
from torch_tasks.errors import CheckinNotFound, InvalidCheckin
from torch_tasks.fleet import fleet
from torch_tasks.model.checkin import At, Busy, CheckinRecord, Cron, Every, Fire, Misfire, PaneTarget
from torch_tasks.model.fields import AgentId, JsonObject, Role, TaskId, Text, readable
from torch_tasks.model.task import Permissions
from torch_tasks.model.traceparent import PlaceInTrace
from torch_tasks.operations.operation import WAIT_SECONDS, Access, Nothing, Request, operation
from torch_tasks.security.rights import EVERYBODY, Right, Subject

_RECEIVERS = ("target", "role", "project", "task", "pane")
_OPTIONS = ("note", "when", "misfire", "jitter", "max_runs")


class CheckinRequest(Request):
    """A request about check-ins."""

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A request of these fields, or :class:`InvalidCheckin` that says what is wrong with them."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidCheckin(f"this check-in cannot be kept: {readable(error)}") from None


class OfCheckin(CheckinRequest):
    """A request about one check-in."""

    checkin_id: TaskId = Field(description="The check-in's id.")


class TimeForm(StrEnum):
    """What a text must name."""

    ONCE = "once"
    EVERY = "every"
    CRON = "cron"


class CheckinOptions(CheckinRequest):
    """Who gets a note, and how it fires."""

    timezone: str | None = Field(None, description="The time zone in which the times are meant.")
    clock: times.Zone | None = Field(
        None, description="The caller's own time zone, and how it is known; for times that name none."
    )
    target: AgentId | None = Field(None, description="The agent that gets the note.")
    role: Role | None = Field(None, description="For all agents of this role.")
    project: Text | None = Field(None, description="For all agents that work in this folder, or one of this name.")
    task: JsonObject | None = Field(None, description="The fields of a task; the note is its prompt each time.")
    pane: PaneTarget | None = Field(None, description="A pane of a user's own tmux server.")
    when: Busy | None = Field(None, description="What happens if the receiver works (default: it waits).")
    misfire: Misfire | None = Field(None, description="What happens to times that passed while no beat ran.")
    jitter: float | None = Field(None, ge=0, le=86400, allow_inf_nan=False, description="Up to so many seconds later.")
    ends: str | None = Field(None, description="The last moment at which it may fire.")
    max_runs: int | None = Field(None, gt=0, description="End it after this many times.")
    traceparent: PlaceInTrace = Field(
        None, description="The caller's span, as the W3C writes it: each fire is linked with it."
    )

    @property
    def receiver(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _RECEIVERS}

    def options(self) -> dict[str, Any]:
        """The options that are named."""
        named = {name: value for name in _OPTIONS if (value := getattr(self, name)) is not None}
        if self.ends:
            named["ends"] = times.moment(self.ends, fleet().checkins.now(), own=self._own)[0]
        if place := self.traceparent or caller().span:
            named["traceparent"] = place
        return named

    def timed(self, text: str, form: TimeForm | None = None) -> times.Timed:
        """The schedule that the text names, of this form if one is named."""
        now = fleet().checkins.now()
        if form is TimeForm.ONCE:
            at, zone = times.moment(text, now, self.timezone, self._own)
            return times.Timed(At(at=at), zone)
        found = times.schedule(text, now, self.timezone, self._own)
        if form and not isinstance(found.schedule, Every if form is TimeForm.EVERY else Cron):
            raise InvalidCheckin(f"{text!r} does not repeat; write {times.AGAIN}")
        return found

    @property
    def _own(self) -> times.Zone | None:
        return self.clock and times.Zone(times.zone_named(self.clock.name).name, self.clock.source)


class AddCheckin(CheckinOptions):
    """A note, when it fires, and for whom."""

    note: Text = Field(description="What the receiver gets.")
    time: str | None = Field(None, description=f"When: {times.ONCE}, or {times.AGAIN}.")
    minutes: float | None = Field(
        None,
        gt=0,
        le=times.LONGEST / timedelta(minutes=1),
        allow_inf_nan=False,
        description="Instead of a time: so many minutes from now.",
    )
    form: TimeForm | None = Field(None, description="What the time must name.")
    id: TaskId = Field(
        default_factory=lambda: uuid.uuid4().hex[:12], description="Adding the same id twice makes one check-in."
    )
    sender: AgentId | None = Field(None, description="In whose name (default: the caller's).")

    @model_validator(mode="after")
    def _has_one_time(self) -> Self:
        if (self.time is None) == (self.minutes is None):
            raise ValueError("say when: name one of time and minutes")
        return self


class ChangeCheckin(CheckinOptions, OfCheckin):
    """What is named is changed, nothing else."""

    note: Text | None = Field(None, description="The new text.")
    time: str | None = Field(None, description="The new time, as for checkin.add.")


class GetFires(OfCheckin):
    limit: int = Field(50, ge=1, description="How many.")


class AwaitReadiness(Request):
    patience: float = Field(0.0, ge=0, le=WAIT_SECONDS, description="Seconds in which a beat may succeed another.")


def _receiver_of(asked: CheckinOptions) -> str | None:
    """The one agent that it names, or all; None if it names no receiver."""
    named = any(value is not None for value in asked.receiver.values())
    return asked.target or (EVERYBODY if named else None)


def _of_new(asked: AddCheckin) -> Subject:
    return Subject(party=asked.sender, agent=_receiver_of(asked))


def of_known(asked: OfCheckin) -> Subject:
    """A check-in is its author's and its receiver's own."""
    who = caller()
    if who.kind is CallerKind.PERSON:
        return Subject(agent=EVERYBODY)
    try:
        known = fleet().checkins.get(asked.checkin_id).checkin
    except CheckinNotFound:
        return Subject()
    if who.name in (known.sender, known.target.agent):
        return Subject()
    return Subject(agent=known.target.agent or EVERYBODY)


def _of_change(asked: ChangeCheckin) -> Subject:
    known, receiver = of_known(asked), _receiver_of(asked)
    return known if known.agent or receiver is None else Subject(agent=receiver)


def _enqueuing(asked: CheckinOptions) -> Right | None:
    """The right that the task takes which each fire enqueues."""
    task = asked.task
    if task is None and isinstance(asked, ChangeCheckin) and _receiver_of(asked) is None:
        with suppress(CheckinNotFound):
            task = fleet().checkins.get(asked.checkin_id).checkin.target.task
    if task is None:
        return None
    return Right.GRANT if task.get("permissions") == Permissions.ALLOW else Right.ENQUEUE


@operation(
    "checkin.add", Right.SCHEDULE, access=Access.WRITE, about=_of_new, also=lambda asked: _enqueuing(asked),
    needs_broker=False,
)  # fmt: skip
def add(asked: AddCheckin) -> AcceptedCheckin:
    """Schedule a note for an agent, a role or a project, or as a task: once, at intervals, or by a line of cron."""
    if asked.minutes is not None:
        at = At(at=fleet().checkins.now() + timedelta(minutes=asked.minutes))
        timed = times.Timed(at, None)
    else:
        timed = asked.timed(asked.time or "", asked.form)
    return CheckinBook(asked.sender).add(timed, receiver=asked.receiver, id=asked.id, **asked.options())


@operation(
    "checkin.change", Right.SCHEDULE, access=Access.WRITE, about=_of_change, also=lambda asked: _enqueuing(asked),
    needs_broker=False,
)  # fmt: skip
def change(asked: ChangeCheckin) -> AcceptedCheckin:
    """Change only the named fields of a check-in; what has fired already is not touched."""
    timed = asked.timed(asked.time) if asked.time else None
    return CheckinBook().change(asked.checkin_id, timed, asked.receiver, **asked.options())


@operation("checkin.list", Right.LOOK, needs_broker=False)
def list_checkins(asked: Nothing) -> list[CheckinRecord]:
    """All check-ins, the next one first, those that never fire again last."""
    return all_checkins()


@operation("checkin.get", Right.LOOK, needs_broker=False)
def get(asked: OfCheckin) -> CheckinRecord:
    """One check-in: its note, its next time, and what happened at the last one."""
    return fleet().checkins.get(asked.checkin_id)


@operation("checkin.history", Right.LOOK, needs_broker=False)
def history(asked: GetFires) -> list[Fire]:
    """The outcome of each time of a check-in, the latest first, and how far its messages and tasks are."""
    return fleet().checkins.history(asked.checkin_id, asked.limit)


@operation("checkin.pause", Right.SCHEDULE, access=Access.WRITE, about=of_known, idempotent=True, needs_broker=False)
def pause(asked: OfCheckin) -> CheckinRecord:
    """Suspend a check-in until it is resumed; times that pass meanwhile are skipped."""
    return fleet().checkins.pause(asked.checkin_id)


@operation("checkin.resume", Right.SCHEDULE, access=Access.WRITE, about=of_known, idempotent=True, needs_broker=False)
def resume(asked: OfCheckin) -> CheckinRecord:
    """Resume a check-in, from its next time on."""
    return fleet().checkins.resume(asked.checkin_id)


@operation("checkin.remove", Right.SCHEDULE, access=Access.WRITE, about=of_known, needs_broker=False)
def remove(asked: OfCheckin) -> None:
    """Delete a check-in and its history; what has fired already still arrives."""
    fleet().checkins.remove(asked.checkin_id)


@operation("checkin.run", Right.SCHEDULE, access=Access.WRITE, about=of_known, needs_broker=False)
def run(asked: OfCheckin) -> Fire:
    """Fire a check-in now, in addition to its times."""
    return fleet().checkins.run_now(asked.checkin_id)


@operation("checkin.readiness", Right.LOOK, needs_broker=False)
def get_readiness(asked: AwaitReadiness) -> Readiness:
    """What check-ins need in order to fire: the beat that leads, and the machines with a live node worker."""
    return readiness(fleet(), asked.patience)

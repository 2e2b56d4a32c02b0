"""Check-ins as people, programs and agents add and change them: requests are read, checked and explained."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError

from torch_tasks import keys
from torch_tasks.caller import OPERATOR, caller
from torch_tasks.checkins import times
from torch_tasks.communication.orchestrator import unknown_recipient
from torch_tasks.errors import InvalidCheckin
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.checkin import At, Checkin, CheckinRecord, Cron, Every, Fire, Target
from torch_tasks.model.fields import readable
from torch_tasks.orchestration.followups import note_own_checkin

GOOD_NOTE = "a good note names what to look at, what was open, and what to do then"
_SAYS_LITTLE = frozenset(
    re.findall(
        r"\w+",
        """
        a an and again any check checkin checking checkup continue do done for go going how hows in it keep look next
        of on ok please ping progress proceed reminder resume standard standup status still stuff task that the then
        there things this to todo up update updates work working you your
        """,
    )
)
_SHELL = "shell"
_POLL_SECONDS = 0.1
_RECEIVERS = ("role", "project", "task", "pane")
_OPTIONS = ("note", "when", "misfire", "jitter", "ends", "max_runs", "id")


class AcceptedCheckin(CheckinRecord):
    """An accepted check-in, with what its caller should know."""

    zone: str = ""
    """The time zone in which its times were read, and where that comes from."""
    warnings: tuple[str, ...] = ()


class Checkins:
    """The check-ins, in the name of one party: the agent in whose pane this runs, else a person."""

    def __init__(self, sender: str | None = None) -> None:
        self.sender = sender or caller().name

    # ── asking for one ───────────────────────────────────────────────────────────────────────────────────────────

    def after(self, minutes: float, note: str, target: str | None = None, **how: Any) -> AcceptedCheckin:
        """Send the note once, so many minutes from now; 0.1 is six seconds.

        It is for the agent ``target``, by default the caller, or for all agents of a ``role`` or in a ``project``;
        ``task`` (the fields of a task) enqueues a task with the note as its prompt. ``when`` decides what happens if
        the receiver works, ``misfire`` what happens to slots missed for want of a beat, ``jitter`` how many seconds
        late it may be; a repeated one stops after ``max_runs`` or at ``ends``. The same ``id`` twice is one check-in.
        Nothing is scheduled if this raises :class:`InvalidCheckin` or :class:`UnknownRecipient`.
        """
        try:
            length = timedelta(minutes=minutes)
        except (TypeError, ValueError, OverflowError):
            raise InvalidCheckin(f"{minutes!r} is no number of minutes") from None
        if length <= timedelta(0):
            raise InvalidCheckin(f"{minutes!r} minutes from now is not in the future; name a number above 0")
        return self._keep(times.Timed(At(at=self._now() + length), None), note, target, how)

    def at(self, time: datetime | str, note: str, target: str | None = None, **how: Any) -> AcceptedCheckin:
        """Send the note once, at a time such as ``"tomorrow 9:00"`` or a datetime; the rest is as for :meth:`after`."""
        now, zone = self._now(), how.pop("timezone", None)
        text = time.isoformat(sep=" ") if isinstance(time, datetime) else time
        moment, used = times.moment(text, now, zone)
        return self._keep(times.Timed(At(at=moment), used), note, target, how)

    def every(
        self, interval: float | timedelta | str, note: str, target: str | None = None, *, start: Any = None, **how: Any
    ) -> AcceptedCheckin:
        """Send the note at intervals, in seconds or as ``"30m"``, from ``start`` on or after one interval; the rest is
        as for :meth:`after`.
        """
        zone = how.pop("timezone", None)
        seconds = interval.total_seconds() if isinstance(interval, timedelta) else interval
        length = f"{seconds:.6f}s" if isinstance(seconds, int | float) else seconds.removeprefix("every ")
        begins = start.isoformat(sep=" ") if isinstance(start, datetime) else start
        text = f"every {length}" + (f" from {begins}" if begins else "")
        return self._keep(self._again(text, Every, zone), note, target, how)

    def cron(
        self, line: str, note: str, target: str | None = None, *, timezone: str | None = None, **how: Any
    ) -> AcceptedCheckin:
        """Send the note as a cron line says, in ``timezone``; the rest is as for :meth:`after`."""
        return self._keep(self._again(line, Cron, timezone), note, target, how)

    def add(
        self, time: str, note: str, target: str | None = None, *, timezone: str | None = None, **how: Any
    ) -> AcceptedCheckin:
        """Send the note when the text says, once or repeatedly; the rest is as for :meth:`after`."""
        return self._keep(times.schedule(time, self._now(), timezone), note, target, how)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def list(self) -> Sequence[CheckinRecord]:
        """All check-ins, the next one first, those that never fire again last."""
        known = fleet().checkins.records()
        return sorted(known, key=lambda record: (record.due is None, record.due or record.checkin.created_at))

    def get(self, checkin_id: str) -> CheckinRecord:
        return fleet().checkins.get(checkin_id)

    def history(self, checkin_id: str, limit: int = 50) -> Sequence[Fire]:
        """The outcomes of its slots, the latest first, with the present states of their messages and tasks."""
        return fleet().checkins.history(checkin_id, limit)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def change(
        self, checkin_id: str, *, time: str | None = None, timezone: str | None = None, **fields: Any
    ) -> AcceptedCheckin:
        """Change the ``time``, ``note``, receiver or options that are named, as :meth:`add` takes them.

        Nothing has changed if this raises :class:`CheckinChanged`: another caller was quicker.
        """
        record = self.get(checkin_id)
        known = {name: getattr(record.checkin, name) for name in Checkin.model_fields}
        timed = times.schedule(time, self._now(), timezone) if time else times.Timed(record.checkin.schedule, None)
        receiver = {name: fields.pop(name, None) for name in ("target", *_RECEIVERS)}
        changes = self._options(fields)
        if "id" in changes:
            raise InvalidCheckin(f"check-in {checkin_id} keeps its id; add another one under {changes['id']!r} instead")
        if any(value is not None for value in receiver.values()):
            changes["target"] = _target(receiver)
        checkin = Checkin.build(**{**known, "schedule": timed.schedule, **changes})
        return self._accept(checkin, timed, lambda: fleet().checkins.change(checkin, record.version))

    def pause(self, checkin_id: str) -> CheckinRecord:
        """Let it not fire until it is resumed; slots that pass meanwhile are skipped."""
        return fleet().checkins.pause(checkin_id)

    def resume(self, checkin_id: str) -> CheckinRecord:
        """Let it fire again, from its next slot on."""
        return fleet().checkins.resume(checkin_id)

    def remove(self, checkin_id: str) -> None:
        """Forget it and its history; what has fired is delivered all the same."""
        fleet().checkins.remove(checkin_id)

    def run_now(self, checkin_id: str) -> Fire:
        """Let it fire at once, in addition to its slots."""
        return fleet().checkins.run_now(checkin_id)

    # ── requests, read and checked ───────────────────────────────────────────────────────────────────────────────

    def _now(self) -> datetime:
        return fleet().checkins.now()

    def _again(self, text: str, kind: type[Every | Cron], timezone: str | None) -> times.Timed:
        timed = times.schedule(text, self._now(), timezone)
        if not isinstance(timed.schedule, kind):
            raise InvalidCheckin(f"{text!r} does not repeat; write {times.AGAIN}")
        return timed

    def _keep(self, timed: times.Timed, note: str, target: str | None, how: dict[str, Any]) -> AcceptedCheckin:
        receiver = {"target": target} | {name: how.pop(name, None) for name in _RECEIVERS}
        options, to = self._options(how), _target(receiver)
        checkin = Checkin.build(note=note, target=to, schedule=timed.schedule, sender=self.sender, **options)
        return self._accept(checkin, timed, lambda: fleet().checkins.add(checkin))

    def _options(self, how: dict[str, Any]) -> dict[str, Any]:
        """The options that are named; ``ends`` may be a text."""
        known = {name: value for name, value in how.items() if value is not None}
        if unknown := set(known) - set(_OPTIONS):
            raise InvalidCheckin(f"{', '.join(sorted(unknown))}: no such option; there are {', '.join(_OPTIONS)}")
        if isinstance(ends := known.get("ends"), str):
            known["ends"] = times.moment(ends, self._now())[0]
        return known

    def _accept(self, checkin: Checkin, timed: times.Timed, keep: Callable[[], CheckinRecord]) -> AcceptedCheckin:
        """Keep it, and add what its caller should know."""
        agents = fleet().registry.agents()
        warnings = [*_target_warnings(checkin.target, agents), *_note_warnings(checkin, agents)]
        record = keep()
        at_work = next((info.current_task for info in agents if info.agent_id == checkin.target.agent), None)
        if at_work:
            note_own_checkin(fleet(), at_work, checkin.id)
        warnings += readiness(fleet()).lacks
        if record.checkin != checkin:
            warnings.insert(0, f"check-in {checkin.id} exists already and was not changed")
        zone = str(timed.zone) if timed.zone else ""
        return AcceptedCheckin(**dict(record), zone=zone, warnings=tuple(warnings))


def _target(receiver: Mapping[str, Any]) -> Target:
    """The receiver that is named, else the calling agent."""
    fields = {"agent" if name == "target" else name: value for name, value in receiver.items() if value is not None}
    if not fields:
        fields["agent"] = caller().agent
        if fields["agent"] is None:
            raise InvalidCheckin("this is no agent's pane: name the agent, role, project or task that gets the note")
    if "task" in fields:
        fields["task"] = dict(fields["task"])
    try:
        return Target.model_validate(fields)
    except ValidationError as error:
        raise InvalidCheckin(f"a check-in cannot have this receiver: {readable(error)}") from None


def _target_warnings(target: Target, agents: Sequence[AgentInfo]) -> Iterator[str]:
    """Warn of a receiver that is not online; :class:`UnknownRecipient` if no agent has that name."""
    name = target.receiver
    if name and name != OPERATOR:
        found = next((info for info in agents if info.agent_id == name), None)
        if found is None:
            raise unknown_recipient(name, [info.agent_id for info in agents])
        if not found.online:
            yield f"{name} is offline now: what fires is kept until it returns"
    role = target.role or (target.task or {}).get("role")
    if role and not any(info.role == role for info in agents):
        yield f"no agent has the role {role} now: until one does, the check-in reaches no agent"


def _note_warnings(checkin: Checkin, agents: Sequence[AgentInfo]) -> Iterator[str]:
    """Warn of a note that says little; one for a shell is a command line and may be short."""
    shells = {info.agent_id for info in agents if info.kind == _SHELL}
    words = re.findall(r"[^\W_]+", checkin.note.casefold().replace("'", ""))
    if checkin.target.agent not in shells and not set(words) - _SAYS_LITTLE:
        yield f"the note {checkin.title!r} says little: {GOOD_NOTE}"


class Readiness(NamedTuple):
    """What check-ins need in order to fire."""

    leads: str | None
    """The beat that leads."""
    nodes: tuple[str, ...]
    """The machines with a live node worker."""

    @property
    def lacks(self) -> list[str]:
        """What is missing, and what to do about it."""
        lacks = []
        if self.leads is None:
            lacks.append("no beat runs: nothing fires until one does ('torch-tasks up', 'celery -A torch_tasks beat')")
        if not self.nodes:
            lacks.append("no node worker runs: what fires waits until one does ('torch-tasks up', 'torch-tasks node')")
        return lacks


def readiness(of: Fleet, patience: float = 0.0) -> Readiness:
    """The readiness within ``patience`` seconds, in which another beat may succeed one that died."""
    deadline = time.monotonic() + patience
    while True:
        leader = of.client.get(keys.BEAT_LEADER)
        found = Readiness(str(leader) if leader else None, tuple(of.nodes.online()))
        if not found.lacks or time.monotonic() >= deadline:
            return found
        time.sleep(_POLL_SECONDS)

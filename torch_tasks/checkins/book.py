"""Check-ins as people, programs and agents add and change them: requests are read, checked and explained."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from torch_tasks.caller import OPERATOR, caller
from torch_tasks.checkins import times
from torch_tasks.checkins.readiness import readiness
from torch_tasks.communication.messenger import unknown_recipient
from torch_tasks.errors import InvalidCheckin
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.asker import Asker
from torch_tasks.model.checkin import Checkin, CheckinRecord, Target
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


class AcceptedCheckin(CheckinRecord):
    """An accepted check-in, with what its caller should know."""

    zone: str = ""
    """The time zone in which its times were read, and where that comes from."""
    warnings: tuple[str, ...] = ()


class CheckinBook:
    """Adds and changes check-ins in the name of one party: by default the caller."""

    def __init__(self, sender: str | None = None) -> None:
        self.sender = sender or caller().name

    def add(self, timed: times.Timed, note: str, receiver: Mapping[str, Any], **options: Any) -> AcceptedCheckin:
        """Send the note at these times to the receiver, by default the calling agent. The same ``id`` is one check-in.

        Nothing is scheduled if this raises :class:`InvalidCheckin` or :class:`UnknownRecipient`.
        """
        asked = {"target": _target(receiver), "sender": self.sender, "asked_by": _asker()}
        checkin = Checkin.build(note=note, schedule=timed.schedule, **asked, **options)
        return self._accept(checkin, timed, lambda: fleet().checkins.add(checkin))

    def change(
        self, checkin_id: str, timed: times.Timed | None, receiver: Mapping[str, Any], **changes: Any
    ) -> AcceptedCheckin:
        """Change what is named; :class:`CheckinChanged` if another caller was quicker, and nothing was changed."""
        record = fleet().checkins.get(checkin_id)
        known = {name: getattr(record.checkin, name) for name in Checkin.model_fields}
        timed = timed or times.Timed(record.checkin.schedule, None)
        if any(value is not None for value in receiver.values()):
            changes["target"] = _target(receiver)
        checkin = Checkin.build(**{**known, "schedule": timed.schedule, "asked_by": _asker(), **changes})
        return self._accept(checkin, timed, lambda: fleet().checkins.change(checkin, record.version))

    def _accept(self, checkin: Checkin, timed: times.Timed, keep: Callable[[], CheckinRecord]) -> AcceptedCheckin:
        """Keep it, and add what its caller should know."""
        agents = fleet().registry.agents()
        warnings = [*_target_warnings(checkin.target, agents), *_note_warnings(checkin, agents)]
        record = keep()
        at_work = next((info.current_task for info in agents if info.agent_id == checkin.target.agent), None)
        if at_work:
            note_own_checkin(fleet(), at_work, checkin.id)
        warnings += readiness(fleet()).lacks
        if _asked_for(record.checkin) != _asked_for(checkin):
            warnings.insert(0, f"check-in {checkin.id} exists already and was not changed")
        zone = str(timed.zone) if timed.zone else ""
        return AcceptedCheckin(**dict(record), zone=zone, warnings=tuple(warnings))


def _asked_for(checkin: Checkin) -> Checkin:
    """What somebody asks for, whoever signed that when it was kept, and of whichever trace it is."""
    return checkin.model_copy(update={"signature": None, "traceparent": None})


def _asker() -> Asker:
    return Asker.now(fleet().settings.node)


def all_checkins() -> list[CheckinRecord]:
    """All check-ins, the next one first, those that never fire again last."""
    known = fleet().checkins.records()
    return sorted(known, key=lambda record: (record.due is None, record.due or record.checkin.created_at))


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

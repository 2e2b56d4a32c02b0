"""Delivers one fire of a check-in to its receivers, with its placeholders filled in."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from torch_tasks.caller import OPERATOR
from torch_tasks.communication.messenger import Messenger, is_working_in
from torch_tasks.errors import (
    BrokerForgot,
    InboxFull,
    InvalidMessage,
    InvalidTask,
    LedgerUnusable,
    MessageNotFound,
    MessageRefused,
    PaneNotFound,
    TorchError,
    UnknownRecipient,
)
from torch_tasks.fleet import Fleet
from torch_tasks.machine.user_panes import find, user_tmux
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.checkin import (
    Busy,
    Checkin,
    Fire,
    PaneTarget,
    Receipt,
    SlotOutcome,
    derived_id,
    fire_span,
    milliseconds,
)
from torch_tasks.model.durations import describe_duration, local_time
from torch_tasks.model.message import Message, MessageKind, When
from torch_tasks.model.task import NOT_BEGUN, TaskRecord, TaskSpec
from torch_tasks.settings import settings
from torch_tasks.system.tally import tally

_WORD = re.compile(r"\{(\w+)\}")
_BUSY = frozenset({AgentState.WORKING, AgentState.WAITING, AgentState.COMPACTING})
_NOT_TAKEN = (UnknownRecipient, InvalidMessage, MessageRefused, InboxFull)
_TASK = "task"
Enqueue = Callable[[TaskSpec], object]


def fill_placeholders(note: str, values: Mapping[str, str]) -> str:
    """The note with the known ones of its words in braces replaced."""
    return _WORD.sub(lambda found: values.get(found[1], found[0]), note)


def agent_values(info: AgentInfo, task: TaskRecord | None) -> dict[str, str]:
    """The placeholders for an agent and the task it has."""
    begun = task and (task.started_at or task.assigned_at)
    return {
        "agent": info.agent_id,
        "role": info.role,
        "project": info.workdir,
        "task": task.spec.id if task else "none",
        "task_title": task.spec.title if task else "nothing",
        "task_state": str(task.state) if task else "none",
        "task_age": describe_duration((datetime.now(UTC) - begun).total_seconds()) if begun else "none",
        "waiting": str(info.load),
    }


def pane_named(target: str) -> PaneTarget:
    """The pane of this machine that the caller's target names, or :class:`PaneNotFound`."""
    tmux = user_tmux()
    find(tmux, target)
    server = tmux.server_pid() if "%" in target or "@" in target else None  # an id means something to its server only
    return PaneTarget(node=settings().node, socket=tmux.place, target=target, server=server)


def type_into(pane: PaneTarget, text: str) -> str:
    """Type the text into the pane's program and verify that it arrived; returns the pane's place."""
    tmux = user_tmux(pane.socket)
    if pane.server and pane.server != tmux.server_pid():
        raise PaneNotFound(
            f"the tmux server at {pane.socket} was restarted: {pane.target} is another pane by now, or none"
        )
    found = find(tmux, pane.target)
    tmux.deliver(found, text)
    return found.place


class CheckinDelivery:
    """One fire of a check-in, ``late`` by so many seconds."""

    def __init__(self, fleet: Fleet, checkin: Checkin, slot: datetime, late: float, enqueue: Enqueue) -> None:
        self._fleet = fleet
        self._checkin = checkin
        self._slot = slot
        self._late = late
        self._enqueue = enqueue
        self._late_seconds = late if late >= fleet.settings.misfire_seconds else 0.0
        self._latest = fleet.checkins.latest(checkin.id)

    def deliver(self) -> Fire:
        """Deliver it and note the outcome; :class:`BrokerForgot` if a restarted broker does not know the agents yet."""
        target = self._checkin.target
        if target.pane:
            fire = self._type(target.pane)
        else:
            fire = self._send_messages() if target.task is None else self._enqueue_task()
        self._fleet.checkins.note(fire)
        tally().count(metrics.CHECKINS_DELIVERED, outcome=fire.outcome)
        if fire.outcome is SlotOutcome.REFUSED:
            self._write_to_sender(fire)
        return fire

    def _write_to_sender(self, fire: Fire) -> None:
        """Write, once, to the agent that set this check-in why it reaches no agent; a person has it among the needs."""
        asked = self._checkin
        if not self._fleet.registry.get_agents([asked.sender]):
            return
        text = (
            f"Your check-in {asked.id} ({asked.title}) reached no agent: {fire.note}\n"
            f"'torch-tasks checkin edit {asked.id} --to AGENT' or 'torch-tasks checkin remove {asked.id}' helps"
        )
        message = Message.build(
            id=uuid.uuid5(uuid.NAMESPACE_OID, f"refused {asked.model_dump_json()}").hex,
            sender=asked.target.receiver or OPERATOR,
            target=asked.sender,
            message=text,
            kind=MessageKind.CHECKIN,
        )
        with suppress(*_NOT_TAKEN):
            Messenger(message.sender).post(message)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _send_messages(self) -> Fire:
        agents = self._receivers()
        if isinstance(agents, str):
            return self._fire_with(SlotOutcome.REFUSED, agents)
        found = [self._send_to(name, info) for name, info in agents.items()]
        receipts = tuple(receipt for receipt, _ in found)
        outcomes = {outcome for _, outcome in found}
        best = next(one for one in (SlotOutcome.SENT, SlotOutcome.SKIPPED, SlotOutcome.REFUSED) if one in outcomes)
        notes = {receipt.note for receipt in receipts if receipt.note}
        return self._fire_with(best, "; ".join(sorted(notes)), receipts=receipts)

    def _receivers(self) -> dict[str, AgentInfo | None] | str:
        """The receivers, or why there are none; of a group its online agents, or all of them if none is online."""
        target, registry = self._checkin.target, self._fleet.registry
        if target.agent:
            return {target.agent: next(iter(registry.get_agents([target.agent])), None)}
        members = [
            info
            for info in registry.agents()
            if (info.role == target.role if target.role else is_working_in(info, target.project or ""))
        ]
        if not members and not registry.has_heard_all():
            raise BrokerForgot(f"no agent that matches {target} is known yet")
        if not members:
            return f"no agent matches {target}"
        return {info.agent_id: info for info in [one for one in members if one.online] or members}

    def _send_to(self, name: str, info: AgentInfo | None) -> tuple[Receipt, SlotOutcome]:
        """Send it to one agent, unless that has it already."""
        message_id = derived_id(self._checkin.id, self._slot, name)
        receipt = Receipt(agent=name, message=message_id)
        slot, latest = self._latest.get(name, (0, ""))
        try:
            known = self._fleet.inboxes.get(message_id)
        except MessageNotFound:
            known = None
        if known:
            return receipt.model_copy(update={"note": _offline(info)}), SlotOutcome.SENT
        if self._checkin.when is Busy.IDLE and slot > milliseconds(self._slot):
            return Receipt(agent=name, note="a later one has taken its place"), SlotOutcome.SKIPPED
        if self._checkin.when is Busy.SKIP and info and _is_working(info):
            what = f"with task {info.current_task}" if info.current_task else f"({info.state})"
            return Receipt(agent=name, note=f"{name} was at work {what}"), SlotOutcome.SKIPPED
        if self._checkin.when is Busy.IDLE and latest:
            place = f"a later one took its place: slot {local_time(self._slot)}"
            self._fleet.inboxes.withdraw(latest, place)
        try:
            Messenger(self._checkin.sender).post(self._message(name, info, message_id))
        except _NOT_TAKEN as error:
            return Receipt(agent=name, note=str(error)), SlotOutcome.REFUSED
        self._fleet.checkins.note_latest(self._checkin.id, name, self._slot, message_id)
        return receipt.model_copy(update={"note": _offline(info)}), SlotOutcome.SENT

    def _message(self, name: str, info: AgentInfo | None, message_id: str) -> Message:
        values = self._values()
        if info:
            task = self._fleet.records.find(info.current_task) if info.current_task else None
            values |= agent_values(info, task)
        return Message.build(
            id=message_id,
            sender=self._checkin.sender,
            target=name,
            message=self._with_lateness(fill_placeholders(self._checkin.note, {"agent": name} | values)),
            kind=MessageKind.CHECKIN,
            when=When.NOW if self._checkin.when is Busy.NOW else When.IDLE,
            correlation_id=derived_id(self._checkin.id, self._slot),
            traceparent=str(fire_span(derived_id(self._checkin.id, self._slot))),
        )

    # ── a task ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _enqueue_task(self) -> Fire:
        task_id = derived_id(self._checkin.id, self._slot, _TASK)
        if reason := self._reason_to_skip(task_id):
            return self._fire_with(SlotOutcome.SKIPPED, reason)
        fields = {**(self._checkin.target.task or {}), "id": task_id}
        prompt = self._with_lateness(fill_placeholders(self._checkin.note, self._values()))
        try:
            self._enqueue(TaskSpec.build(**{**fields, "prompt": prompt}))
        except (InvalidTask, LedgerUnusable) as error:
            return self._fire_with(SlotOutcome.REFUSED, str(error))
        self._fleet.checkins.note_latest(self._checkin.id, _TASK, self._slot, task_id)
        return self._fire_with(SlotOutcome.SENT, "", task=task_id)

    def _reason_to_skip(self, task_id: str) -> str:
        """Empty unless the last task has not begun or, with ``skip``, not ended."""
        _, latest = self._latest.get(_TASK, (0, ""))
        record = self._fleet.records.find(latest) if latest and latest != task_id else None
        if record is None or record.state.ended:
            return ""
        if self._checkin.when is Busy.IDLE and record.state in NOT_BEGUN:
            return f"no agent has begun task {latest} yet"
        return f"task {latest} is {record.state}" if self._checkin.when is Busy.SKIP else ""

    # ── a pane of a user's own ───────────────────────────────────────────────────────────────────────────────────

    def _type(self, pane: PaneTarget) -> Fire:
        """Type it into the pane, at most once."""
        known = self._fleet.checkins.fire(self._checkin.id, self._slot)
        if known and not known.outcome.open:
            return known
        if not self._fleet.checkins.begin(self._checkin.id, self._slot):
            unclear = "its node worker died meanwhile. It is not typed twice: look at the pane"
            return self._fire_with(SlotOutcome.REFUSED, f"it is unknown whether it was typed into {pane}; {unclear}")
        try:
            place = type_into(pane, self._with_lateness(fill_placeholders(self._checkin.note, self._values())))
        except TorchError as error:
            return self._fire_with(SlotOutcome.REFUSED, str(error))
        return self._fire_with(SlotOutcome.SENT, f"the program in {place} took it")

    # ── what all of them need ────────────────────────────────────────────────────────────────────────────────────

    def _values(self) -> dict[str, str]:
        """The placeholders for the fire itself."""
        return {
            "checkin": self._checkin.id,
            "sender": self._checkin.sender,
            "slot": f"{self._slot.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            "late": describe_duration(self._late_seconds) if self._late_seconds else "on time",
        }

    def _with_lateness(self, text: str) -> str:
        """The text; if it is late and the note has no ``{late}``, with a line that says so."""
        if not self._late_seconds or "{late}" in self._checkin.note:
            return text
        slot = self._slot.astimezone(UTC)
        return f"{text}\n(This was due at {local_time(slot)}, {describe_duration(self._late_seconds)} ago.)"

    def _fire_with(self, outcome: SlotOutcome, note: str, **more: Any) -> Fire:
        late = f"{describe_duration(self._late_seconds)} late" if self._late_seconds else ""
        return Fire(
            checkin_id=self._checkin.id,
            slot=self._slot,
            outcome=outcome,
            at=self._fleet.checkins.now(),
            late=self._late,
            note="; ".join(part for part in (late, note) if part),
            celery_id=derived_id(self._checkin.id, self._slot),
            **more,
        )


def _is_working(info: AgentInfo) -> bool:
    return info.online and (info.current_task is not None or info.state in _BUSY)


def _offline(info: AgentInfo | None) -> str:
    if info is None or (info.online and info.state is not AgentState.EXITED):
        return ""
    return f"{info.agent_id} is offline: kept until it returns"

"""One fire of a check-in brought to its receivers, its placeholders filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from torch_tasks.communication.orchestrator import NovaOrchestrator, is_working_in
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
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.checkin import (
    Busy,
    Checkin,
    Fire,
    PaneTarget,
    Receipt,
    SlotOutcome,
    derived_id,
    milliseconds,
)
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.message import Message, MessageKind, When
from torch_tasks.model.task import NOT_BEGUN, TaskRecord, TaskSpec
from torch_tasks.settings import settings

_WORD = re.compile(r"\{(\w+)\}")


def fill_placeholders(note: str, values: Mapping[str, str]) -> str:
    """The note with what is known in place of the words in braces."""
    return _WORD.sub(lambda found: values.get(found[1], found[0]), note)


def agent_values(info: AgentInfo, task: TaskRecord | None) -> dict[str, str]:
    """What is known of an agent and of the task it has."""
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


def slot_values(checkin_id: str, sender: str, slot: datetime, late: float) -> dict[str, str]:
    """What is known of the fire itself; it is ``late`` by so many seconds, 0 if it is on time."""
    return {
        "checkin": checkin_id,
        "sender": sender,
        "slot": f"{slot.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        "late": describe_duration(late) if late else "on time",
    }


def pane_named(target: str) -> PaneTarget:
    """The pane of this machine that the caller's target names, or :class:`PaneNotFound`."""
    tmux = user_tmux()
    find(tmux, target)
    server = tmux.server_pid() if _is_id(target) else None
    return PaneTarget(node=settings().node, socket=tmux.place, target=target, server=server)


def type_into(pane: PaneTarget, text: str) -> str:
    """Put the text into the pane's program, verified; returns where that was. An error if it did not arrive there."""
    tmux = user_tmux(pane.socket)
    if pane.server and pane.server != tmux.server_pid():
        raise PaneNotFound(
            f"the tmux server at {pane.socket} was started anew: {pane.target} is another pane by now, or none"
        )
    found = find(tmux, pane.target)
    tmux.deliver(found, text)
    return found.place


def _is_id(target: str) -> bool:
    """Only its server knows it."""
    return "%" in target or "@" in target


_BUSY = frozenset({AgentState.WORKING, AgentState.WAITING, AgentState.COMPACTING})
_NOT_TAKEN = (UnknownRecipient, InvalidMessage, MessageRefused, InboxFull)
_TASK = "task"
Enqueue = Callable[[TaskSpec], object]


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
        """Do it, and have the history say what became of it. :class:`BrokerForgot` if it is too early to say."""
        whom = self._checkin.target
        fire = self._typed(whom.pane) if whom.pane else self._task() if whom.task is not None else self._messages()
        self._fleet.checkins.note(fire)
        return fire

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _messages(self) -> Fire:
        agents = self._receivers()
        if isinstance(agents, str):
            return self._fire_with(SlotOutcome.REFUSED, agents)
        found = [self._to_agent(name, info) for name, info in agents.items()]
        receipts = tuple(receipt for receipt, _ in found)
        outcomes = {outcome for _, outcome in found}
        best = next(one for one in (SlotOutcome.SENT, SlotOutcome.SKIPPED, SlotOutcome.REFUSED) if one in outcomes)
        notes = {receipt.note for receipt in receipts if receipt.note}
        return self._fire_with(best, "; ".join(sorted(notes)), receipts=receipts)

    def _receivers(self) -> dict[str, AgentInfo | None] | str:
        """The receivers, or why there are none. Of a group those who are online; if none is, all of them."""
        target, registry = self._checkin.target, self._fleet.registry
        if target.agent:
            return {target.agent: next(iter(registry.get_agents([target.agent])), None)}
        members = [
            info
            for info in registry.agents()
            if (info.role == target.role if target.role else is_working_in(info, target.project or ""))
        ]
        if not members and not registry.has_heard_all():
            raise BrokerForgot(f"nobody is known yet who would be meant by {target}")
        if not members:
            return f"nobody is known who would be meant by {target}"
        return {info.agent_id: info for info in [one for one in members if one.online] or members}

    def _to_agent(self, name: str, info: AgentInfo | None) -> tuple[Receipt, SlotOutcome]:
        """Give it to one agent, unless it has it already."""
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
            return _nothing(name, "a later one has taken its place"), SlotOutcome.SKIPPED
        if self._checkin.when is Busy.SKIP and info and _works(info):
            what = f"with task {info.current_task}" if info.current_task else f"({info.state})"
            return _nothing(name, f"{name} was at work {what}"), SlotOutcome.SKIPPED
        if self._checkin.when is Busy.IDLE and latest:
            place = f"a later one took its place: slot {self._slot.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            self._fleet.inboxes.withdraw(latest, place)
        try:
            NovaOrchestrator(self._checkin.sender).post(self._message(name, info, message_id))
        except _NOT_TAKEN as error:
            return _nothing(name, str(error)), SlotOutcome.REFUSED
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
        )

    # ── a task ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _task(self) -> Fire:
        """Enqueue it, unless the one before it is in the way."""
        task_id = derived_id(self._checkin.id, self._slot, _TASK)
        if before := self._in_the_way(task_id):
            return self._fire_with(SlotOutcome.SKIPPED, before)
        fields = {**(self._checkin.target.task or {}), "id": task_id}
        prompt = self._with_lateness(fill_placeholders(self._checkin.note, self._values()))
        try:
            self._enqueue(TaskSpec.build(**{**fields, "prompt": prompt}))
        except (InvalidTask, LedgerUnusable) as error:
            return self._fire_with(SlotOutcome.REFUSED, str(error))
        self._fleet.checkins.note_latest(self._checkin.id, _TASK, self._slot, task_id)
        return self._fire_with(SlotOutcome.SENT, "", task=task_id)

    def _in_the_way(self, task_id: str) -> str:
        """Why no task is enqueued: the last one has not begun; or, with ``skip``, has not ended."""
        _, latest = self._latest.get(_TASK, (0, ""))
        record = self._fleet.records.find(latest) if latest and latest != task_id else None
        if record is None or record.state.ended:
            return ""
        if self._checkin.when is Busy.IDLE and record.state in NOT_BEGUN:
            return f"nobody has begun with task {latest} yet"
        return f"task {latest} is {record.state}" if self._checkin.when is Busy.SKIP else ""

    # ── a pane of a user's own ───────────────────────────────────────────────────────────────────────────────────

    def _typed(self, pane: PaneTarget) -> Fire:
        """Type it, at most once."""
        known = self._fleet.checkins.fire(self._checkin.id, self._slot)
        if known and not known.outcome.open:
            return known
        if not self._fleet.checkins.begin(self._checkin.id, self._slot):
            unclear = "its node worker died meanwhile: look at the pane, for it is not typed twice"
            return self._fire_with(SlotOutcome.REFUSED, f"nothing shows whether it was typed into {pane}; {unclear}")
        try:
            place = type_into(pane, self._with_lateness(fill_placeholders(self._checkin.note, self._values())))
        except TorchError as error:
            return self._fire_with(SlotOutcome.REFUSED, str(error))
        return self._fire_with(SlotOutcome.SENT, f"the program in {place} took it")

    # ── all ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _values(self) -> dict[str, str]:
        return slot_values(self._checkin.id, self._checkin.sender, self._slot, self._late_seconds)

    def _with_lateness(self, text: str) -> str:
        """The text, which says how late it comes if it does not say so by itself."""
        if not self._late_seconds or "{late}" in self._checkin.note:
            return text
        slot = self._slot.astimezone(UTC)
        return f"{text}\n(This was due at {slot:%Y-%m-%d %H:%M:%S} UTC, {describe_duration(self._late_seconds)} ago.)"

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


def _nothing(agent: str, why: str) -> Receipt:
    return Receipt(agent=agent, note=why)


def _works(info: AgentInfo) -> bool:
    return info.online and (info.current_task is not None or info.state in _BUSY)


def _offline(info: AgentInfo | None) -> str:
    if info is None or (info.online and info.state is not AgentState.EXITED):
        return ""
    return f"{info.agent_id} is offline: kept until it returns"

"""The flow of events about messages, tasks and agents; reading it takes nothing from their receivers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from queue import Empty, Queue
from typing import Any

from pydantic import AwareDatetime, Field

from torch_tasks import keys
from torch_tasks.errors import BrokerAway, Unreadable
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentChange, SeenAgents
from torch_tasks.model.fields import KeptText, Model, now
from torch_tasks.model.message import Message, MessageRecord, MessageState
from torch_tasks.model.reader import read_model
from torch_tasks.model.task import TaskRecord, TaskState
from torch_tasks.store.messages import CHANNELS, AuditEntry, AuditKind
from torch_tasks.system.loops import Loop

_AT_ONCE, _WAITING, _RETRY_SECONDS, _LOOK_SECONDS = 200, 10_000, 0.5, 1.0
_MESSAGE, _TASK = keys.message(""), keys.task_record("")
_LOST_TASKS = (TaskState.FAILED, TaskState.DEAD)


class FlowKind(StrEnum):
    MESSAGES = "messages"
    TASKS = "tasks"
    AGENTS = "agents"
    BROKER = "broker"


class FlowEvent(Model):
    at: AwareDatetime = Field(default_factory=now)
    kind: FlowKind
    what: str
    """The new state of a message, a task or an agent; or why a message was not sent."""
    lost: bool = False
    """A message, a task or an agent is lost unless a person acts."""
    id: str = ""
    sender: str = ""
    agent: str = ""
    """The receiver of a message, the agent of a task, or the agent itself."""
    role: str = ""
    text: KeptText = ""
    note: KeptText = ""


class Flow:
    """The events from now on; :class:`BrokerUnreachable` if the broker cannot be reached at the start."""

    def __init__(self, of: Fleet) -> None:
        self._fleet = of
        self._events: Queue[FlowEvent] = Queue(_WAITING)
        self._roles: dict[str, str] = {}
        self._cut_off: set[str] = set()
        self._noting = threading.Lock()
        self._closed = False
        self._sources: dict[str, Iterator[FlowEvent]] = {}
        of.client.ping()
        for begin in (self._begin_to_listen, self._begin_to_watch):
            self._sources[begin.__name__] = begin()
            Loop(f"flow, {begin.__name__}", partial(self._pass_on, begin), until=lambda: self._closed).start()

    def close(self) -> None:
        """End within about a second; no further event comes."""
        self._closed = True

    def events(self, deadline: float | None = None) -> Iterator[FlowEvent | None]:
        """Each event as it happens; None about once a second while there is none."""
        while (left := 1.0 if deadline is None else min(1.0, deadline - time.monotonic())) > 0:
            try:
                yield self._events.get(timeout=left)
            except Empty:
                yield None

    def _pass_on(self, begin: Callable[[], Iterator[FlowEvent]]) -> float | None:
        """Pass on a source's events until it breaks off; open it again, once the broker is back."""
        name = begin.__name__
        source = self._sources.pop(name, None)
        try:
            if source is None:
                source = self._sources[name] = begin()
                self._note_back(name)
                return None
            for event in source:
                self._events.put(event)
        except BrokerAway as error:
            self._note_away(name, str(error))
            return _RETRY_SECONDS
        return None

    def _note_away(self, source: str, why: str) -> None:
        with self._noting:
            if not self._cut_off:
                self._events.put(FlowEvent(kind=FlowKind.BROKER, what="away", lost=True, note=why))
            self._cut_off.add(source)

    def _note_back(self, source: str) -> None:
        """Once both sources are open again, the broker counts as back."""
        with self._noting:
            self._cut_off.discard(source)
            if not self._cut_off:
                self._events.put(FlowEvent(kind=FlowKind.BROKER, what="back", note="events meanwhile were missed"))

    # ── messages and tasks ───────────────────────────────────────────────────────────────────────────────────────

    def _begin_to_listen(self) -> Iterator[FlowEvent]:
        channel = self._fleet.client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        channel.subscribe(*CHANNELS.values(), keys.AUDIT)
        channel.psubscribe(f"{_MESSAGE}*", f"{_TASK}*")
        return self._listen(channel)

    def _listen(self, channel: Any) -> Iterator[FlowEvent]:
        try:
            while not self._closed:
                notices: list[dict[str, Any]] = []
                # One notice may be followed by many: their records are read together.
                while len(notices) < _AT_ONCE and (one := channel.get_message(timeout=0.0 if notices else 1.0)):
                    notices.append(one)
                yield from self._events_of(notices)
        finally:
            channel.close()

    def _events_of(self, notices: list[dict[str, Any]]) -> Iterator[FlowEvent]:
        names = [str(notice["channel"]) for notice in notices]
        messages = self._records_of(_MESSAGE, names, self._fleet.inboxes.records)
        tasks = self._records_of(_TASK, names, lambda ids: [self._fleet.records.find(task_id) for task_id in ids])
        for name, notice in zip(names, notices, strict=True):
            data = str(notice["data"])
            if name.startswith(_MESSAGE):
                yield self._of_message(name.removeprefix(_MESSAGE), data, messages.get(name))
            elif name.startswith(_TASK):
                yield self._of_task(name.removeprefix(_TASK), data, tasks.get(name))
            elif event := self._of_audit(data) if name == keys.AUDIT else self._of_channel(data):
                yield event

    @staticmethod
    def _records_of(prefix: str, names: Iterable[str], read: Callable[[list[str]], list[Any]]) -> dict[str, Any]:
        ids = sorted({name.removeprefix(prefix) for name in names if name.startswith(prefix)})
        return dict(zip((prefix + one for one in ids), read(ids), strict=True)) if ids else {}

    def _of_channel(self, data: str) -> FlowEvent | None:
        try:
            message = read_model(Message, data)
        except Unreadable:  # another service's message
            return None
        return self._message(message, MessageState.ACCEPTED, "")

    def _of_message(self, message_id: str, state: str, record: MessageRecord | None) -> FlowEvent:
        if record is None:
            return FlowEvent(kind=FlowKind.MESSAGES, what=state, id=message_id)
        way = "" if record.transport == "broker" else f"transport={record.transport}"
        return self._message(record.message, state, "; ".join(filter(None, (way, record.note))))

    def _message(self, message: Message, state: str, note: str) -> FlowEvent:
        return FlowEvent(
            kind=FlowKind.MESSAGES,
            what=state,
            lost=state in (MessageState.DEAD, MessageState.EXPIRED),
            id=message.id,
            sender=message.sender,
            agent=message.target,
            role=self._role(message.target),
            text=message.message,
            note=note,
        )

    def _of_audit(self, data: str) -> FlowEvent | None:
        try:
            entry = read_model(AuditEntry, data)
        except Unreadable:
            return None
        if entry.what is AuditKind.FALLBACK:  # the message itself is shown
            return None
        ends = {"sender": entry.sender, "agent": entry.target, "role": self._role(entry.target)}
        return FlowEvent(
            kind=FlowKind.MESSAGES, what=entry.what, lost=True, id=entry.message_id, note=entry.why, **ends
        )

    def _of_task(self, task_id: str, state: str, record: TaskRecord | None) -> FlowEvent:
        if record is None:
            return FlowEvent(kind=FlowKind.TASKS, what=state, id=task_id)
        agent = record.agent or record.spec.agent or ""
        return FlowEvent(
            kind=FlowKind.TASKS,
            what=state,
            lost=state in _LOST_TASKS,
            id=task_id,
            agent=agent,
            role=record.spec.role or self._role(agent),
            text=record.spec.prompt,
            note=record.note or "",
        )

    # ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_to_watch(self) -> Iterator[FlowEvent]:
        registry = self._fleet.registry
        place, agents = registry.place(), registry.agents()
        self._roles.update({info.agent_id: info.role for info in agents})
        return self._watch(place, SeenAgents(agents))

    def _watch(self, place: str, seen: SeenAgents) -> Iterator[FlowEvent]:
        while not self._closed:
            agents, place = self._fleet.registry.changed_since(place, _LOOK_SECONDS)
            yield from map(self._of_agent, seen.look(agents))

    def _of_agent(self, change: AgentChange) -> FlowEvent:
        info = change.info
        self._roles[info.agent_id] = info.role
        is_lost = change.what == "left" and not info.left
        what = str(info.state) if change.what == "state" else change.what
        note = {
            "came": f"{info.kind} on {info.node}, incarnation {info.incarnation}",
            "left": "no heartbeat" if is_lost else "shut down",
            "task": info.current_task or "none",
            "abilities": "+".join(info.skills),
        }.get(change.what, "")
        return FlowEvent(kind=FlowKind.AGENTS, what=what, lost=is_lost, agent=info.agent_id, role=info.role, note=note)

    def _role(self, agent_id: str) -> str:
        if agent_id and agent_id not in self._roles:
            self._roles[agent_id] = next((info.role for info in self._fleet.registry.get_agents([agent_id])), "")
        return self._roles.get(agent_id, "")

"""The flow of events about messages, tasks and agents; reading it takes nothing from their receivers."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple, Self

from pydantic import AwareDatetime, Field

from torch_tasks import keys
from torch_tasks.errors import TorchError, Unreadable
from torch_tasks.fleet import Fleet
from torch_tasks.model.agent import AgentChange, AgentInfo, SeenAgents
from torch_tasks.model.fields import KeptText, Model, now
from torch_tasks.model.message import MessageRecord, MessageState
from torch_tasks.model.reader import read_model
from torch_tasks.model.task import TaskRecord, TaskState
from torch_tasks.store.message_audit import AuditEntry, AuditKind
from torch_tasks.store.notices import Notice
from torch_tasks.system.loops import Loop

_RETRY_SECONDS, _LOOK_SECONDS = 0.5, 1.0
_MESSAGE, _TASK = keys.message(""), keys.task_record("")
_LOST_TASKS = (TaskState.FAILED, TaskState.DEAD)
_PLACE = re.compile(r"\d{1,19}(-\d{1,19}){5}")


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


class FlowPlace(NamedTuple):
    """A place in the flow: what comes after it is the same for every process that reads the flow."""

    notices: tuple[int, int, int]
    """After this notice, and after so many events about the broker since."""
    agents: tuple[int, int, int]
    """After this notice of an agent's change, and after the silences up to this millisecond."""

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The place that was written so; None if it is none."""
        if not _PLACE.fullmatch(text):
            return None
        numbers = [int(one) for one in text.split("-")]
        return cls((numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5]))

    def __str__(self) -> str:
        return "-".join(map(str, (*self.notices, *self.agents)))

    def is_before(self, other: FlowPlace) -> bool:
        """Whether something may lie between them."""
        return self.notices < other.notices or self.agents < other.agents


class PlacedEvent(NamedTuple):
    """An event, and the place after it."""

    event: FlowEvent
    place: FlowPlace

    def is_after(self, place: FlowPlace) -> bool:
        if self.event.kind is FlowKind.AGENTS:
            return self.place.agents > place.agents
        return self.place.notices > place.notices


class Flow:
    """The events from now on, for as long as their reader wants them.

    :class:`BrokerUnreachable` if the broker cannot be reached at the start.
    """

    def __init__(self, of: Fleet, pass_on: Callable[[PlacedEvent], None], is_over: Callable[[], bool]) -> None:
        self._fleet = of
        self._pass_on = pass_on
        self._is_over = is_over
        self._roles: dict[str, str] = {}
        self._cut_off: dict[str, str] = {}
        self._telling = threading.Lock()
        of.client.ping()
        self.begin = self.place = FlowPlace((*of.notices.last(), 0), _agents_place(of.registry.place()))
        self._seen = SeenAgents(self._known_agents())
        for read in (self._read_notices, self._look_at_agents):
            Loop(f"flow, {read.__name__}", partial(self._go_on, read), until=is_over).start()

    @property
    def trouble(self) -> str:
        """Why events cannot be read now; empty if they are read."""
        return next(iter(self._cut_off.values()), "")

    def _go_on(self, read: Callable[[], None]) -> float | None:
        """Read what is next of a source; note when the broker goes away and comes back."""
        name = read.__name__
        try:
            read()
        except TorchError as error:
            is_new, self._cut_off[name] = not self._cut_off, str(error)
            if is_new:
                self._tell_of_broker("away", str(error), lost=True)
            return _RETRY_SECONDS
        if self._cut_off.pop(name, None) and not self._cut_off:  # both sources are open again
            self._tell_of_broker("back", "what happened meanwhile follows, as far as the broker kept it")
        return None

    def _tell_of_broker(self, what: str, note: str, *, lost: bool = False) -> None:
        with self._telling:
            milliseconds, number, count = self.place.notices
            self.place = self.place._replace(notices=(milliseconds, number, count + 1))
            self._pass_on(PlacedEvent(FlowEvent(kind=FlowKind.BROKER, what=what, lost=lost, note=note), self.place))

    # ── messages and tasks ───────────────────────────────────────────────────────────────────────────────────────

    def _read_notices(self) -> None:
        notices = self._fleet.notices.await_after(self.place.notices[:2], int(_LOOK_SECONDS * 1000))
        for notice, event in self._events_of(notices):
            with self._telling:
                self.place = self.place._replace(notices=(*notice.number, 0))
                if event:
                    self._pass_on(PlacedEvent(event, self.place))

    def between(self, place: FlowPlace, last: FlowPlace) -> tuple[list[PlacedEvent], FlowPlace]:
        """The first of the events after one place and up to a later one, as the broker has kept them, and where it is.

        Of the agents that changed meanwhile, only how they are now.
        """
        placed: list[PlacedEvent] = []
        notices = self._fleet.notices.between(place.notices[:2], last.notices[:2])
        for notice, event in self._events_of(notices):
            place = place._replace(notices=(*notice.number, 0))
            if event:
                placed.append(PlacedEvent(event, place))
        if notices:
            return placed, place
        place = place._replace(notices=max(place.notices, last.notices))
        if place.agents < last.agents:
            agents, _ = self._fleet.registry.changed_since("{}-{} {}".format(*place.agents), 0.0)
            place = place._replace(agents=last.agents)
            changes = (AgentChange(info.agent_id, "state", info, None) for info in agents)
            placed = [PlacedEvent(self._of_agent(change), place) for change in changes]
        return placed, place

    def _events_of(self, notices: list[Notice]) -> Iterator[tuple[Notice, FlowEvent | None]]:
        """What each notice says; the records of many are read together."""
        names = [notice.record for notice in notices]
        messages = self._records_of(_MESSAGE, names, self._fleet.inboxes.records)
        tasks = self._records_of(_TASK, names, lambda ids: [self._fleet.records.find(task_id) for task_id in ids])
        for notice, name in zip(notices, names, strict=True):
            if name.startswith(_MESSAGE):
                yield notice, self._of_message(name.removeprefix(_MESSAGE), notice.state, messages.get(name))
            elif name.startswith(_TASK):
                yield notice, self._of_task(name.removeprefix(_TASK), notice.state, tasks.get(name))
            else:
                yield notice, self._of_audit(notice.audit)

    @staticmethod
    def _records_of(prefix: str, names: Iterable[str], read: Callable[[list[str]], list[Any]]) -> dict[str, Any]:
        ids = sorted({name.removeprefix(prefix) for name in names if name.startswith(prefix)})
        return dict(zip((prefix + one for one in ids), read(ids), strict=True)) if ids else {}

    def _of_message(self, message_id: str, state: str, record: MessageRecord | None) -> FlowEvent:
        if record is None:
            return FlowEvent(kind=FlowKind.MESSAGES, what=state, id=message_id)
        message = record.message
        way = "" if record.transport == "broker" else f"transport={record.transport}"
        return FlowEvent(
            kind=FlowKind.MESSAGES,
            what=state,
            lost=state in (MessageState.DEAD, MessageState.EXPIRED),
            id=message.id,
            sender=message.sender,
            agent=message.target,
            role=self._role(message.target),
            text=message.message,
            note="; ".join(filter(None, (way, record.note))),
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

    def _known_agents(self) -> list[AgentInfo]:
        agents = self._fleet.registry.agents()
        self._roles.update({info.agent_id: info.role for info in agents})
        return agents

    def _look_at_agents(self) -> None:
        agents, place = self._fleet.registry.changed_since("{}-{} {}".format(*self.place.agents), _LOOK_SECONDS)
        with self._telling:
            self.place = self.place._replace(agents=_agents_place(place))
            for change in self._seen.look(agents):
                self._pass_on(PlacedEvent(self._of_agent(change), self.place))

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


def _agents_place(text: str) -> tuple[int, int, int]:
    milliseconds, number, silent = text.replace(" ", "-").split("-")
    return int(milliseconds), int(number), int(silent)

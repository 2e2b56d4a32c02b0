"""The messages that wait for this agent: their order, and whether one may go into the pane."""

from __future__ import annotations

import threading
from enum import Enum
from typing import NamedTuple

from torch_tasks.model.message import MessageState, Urgency, When
from torch_tasks.store.messages import InboxEntry
from torch_tasks.workers.folders import MessageFolder
from torch_tasks.workers.programs.submission import SubmissionPhase


class WaitingMessage:
    """A message that waits for the agent."""

    def __init__(self, folder: MessageFolder, entry: InboxEntry | None) -> None:
        self.folder = folder
        self.message = folder.message
        self.entry = entry
        """Its place in the inbox; none if it did not come through the broker."""
        self.tries = 0
        self.is_counted = False
        """The call to the model that it costs is counted."""

    @property
    def is_emergency(self) -> bool:
        """It overtakes other messages, and is delivered to a paused agent, too."""
        return self.message.priority is Urgency.EMERGENCY

    @property
    def when(self) -> When:
        """When the agent is to get it; an emergency does not wait for an idle agent."""
        return When.NOW if self.is_emergency and self.message.when is When.IDLE else self.message.when


class MessageQueue:
    """The waiting messages: emergencies first, then those that do not wait for an idle agent, then by arrival.

    A message never overtakes one of the same sender and urgency: a pressing one makes the earlier ones press.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, WaitingMessage] = {}
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, folder: MessageFolder, entry: InboxEntry | None) -> None:
        """Have the message wait; if it waits already, note its place in the inbox."""
        with self._changing:
            known = self._waiting.get(folder.message.id)
            if known is None:
                self._waiting[folder.message.id] = WaitingMessage(folder, entry)
            elif entry:
                known.entry = entry

    def remove(self, waiting: WaitingMessage) -> None:
        with self._changing:
            self._waiting.pop(waiting.message.id, None)

    def first(self) -> WaitingMessage | None:
        """The next message to deliver."""
        everything = sorted(self._copy(), key=lambda waiting: not waiting.is_emergency)
        pressing = next((waiting for waiting in everything if waiting.when is not When.IDLE), None)
        if pressing is None:
            return next(iter(everything), None)
        return next(waiting for waiting in everything if _stream(waiting) == _stream(pressing))

    def first_pressing(self) -> WaitingMessage | None:
        """The next message to deliver, unless it waits for an idle agent."""
        first = self.first()
        return first if first and self.when(first) is not When.IDLE else None

    def when(self, waiting: WaitingMessage) -> When:
        """When to deliver it: as soon as any message of its sender, which must not overtake it."""
        same = [other.when for other in self._copy() if other.message.sender == waiting.message.sender]
        return max(waiting.when, *same, key=list(When).index)

    def _copy(self) -> list[WaitingMessage]:
        with self._changing:
            return list(self._waiting.values())


def _stream(waiting: WaitingMessage) -> tuple[str, Urgency]:
    return waiting.message.sender, waiting.message.priority


class DeliveryDecision(Enum):
    """What to do with the first message in the queue now."""

    WAIT = "wait"
    DELIVER = "deliver"
    INTERRUPT = "interrupt"
    """Interrupt what the program does, then deliver."""


class AgentReadiness(NamedTuple):
    """What decides whether a living agent gets a message now."""

    is_stopped: bool = False
    is_paused: bool = False
    is_free: bool = False
    """Nothing but an empty input line is in its pane."""
    is_answering: bool = False
    """It still answers the previous message, and a new prompt would hide the answer."""
    is_working: bool = False
    """A conversational program is at work on something."""
    listens_while_working: bool = False


def decide_delivery(when: When, agent: AgentReadiness, *, is_emergency: bool, is_begun: bool) -> DeliveryDecision:
    """Whether the message may go in now, given what the agent does and when the sender wants it delivered."""
    if agent.is_stopped or (agent.is_paused and not is_emergency and not is_begun):
        return DeliveryDecision.WAIT
    if agent.is_free:
        waits = agent.is_answering and when is When.IDLE
        return DeliveryDecision.WAIT if waits else DeliveryDecision.DELIVER
    if is_begun:
        return DeliveryDecision.DELIVER
    if when is When.IDLE or not agent.is_working:
        return DeliveryDecision.WAIT
    if when is When.INTERRUPT:
        return DeliveryDecision.INTERRUPT
    return DeliveryDecision.DELIVER if agent.listens_while_working else DeliveryDecision.WAIT


CANNOT_TELL = "cannot tell whether it arrived: "
_CONCLUSIONS = {
    SubmissionPhase.ACCEPTED: (MessageState.ACKNOWLEDGED, ""),
    SubmissionPhase.INDETERMINATE: (MessageState.DEAD, CANNOT_TELL),
    SubmissionPhase.REFUSED: (MessageState.DEAD, "the agent's program did not take it: "),
}


def conclusion(phase: SubmissionPhase, evidence: str) -> tuple[MessageState, str] | None:
    """The final state of a message whose submission is in this phase, with a note; nothing while it is on its way."""
    known = _CONCLUSIONS.get(phase)
    return (known[0], known[1] + evidence) if known else None

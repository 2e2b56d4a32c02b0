"""The messages that wait for this agent: each one's folder on disk, their order, and whether one may go into the pane.

A message's stage is read from its folder, so a worker that comes back goes on where a killed one was.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from enum import Enum, StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict

from torch_tasks.errors import IllegalTransition
from torch_tasks.model.fields import now
from torch_tasks.model.message import Message, MessageState, Transport, Urgency, When
from torch_tasks.store.messages import InboxEntry
from torch_tasks.system.files import write_private
from torch_tasks.workers.programs.submission import SubmissionPhase

_MESSAGE, _SUBMISSION, _OUTCOME, _REPORTED = "message.json", "submission.json", "outcome.json", "reported.json"


class MessageStage(StrEnum):
    """How far a message is at this worker."""

    NEW = "new"
    """Nothing of it is on disk."""
    WAITING = "waiting"
    """It is on disk, and nothing of it in the program."""
    BEGUN = "begun"
    """Its text may be in the program."""
    CONCLUDED = "concluded"
    """What became of it is on disk, and the broker does not know it yet."""
    REPORTED = "reported"
    """The broker knows it, too. The folder stays, so that the message is never delivered again."""


STAGES: dict[MessageStage, frozenset[MessageStage]] = {
    MessageStage.NEW: frozenset({MessageStage.WAITING}),
    MessageStage.WAITING: frozenset({MessageStage.WAITING, MessageStage.BEGUN, MessageStage.CONCLUDED}),
    # The program certainly does not have it: it waits again.
    MessageStage.BEGUN: frozenset({MessageStage.WAITING, MessageStage.CONCLUDED}),
    # Given up, and replayed by a person: it waits again, or is given up again.
    MessageStage.CONCLUDED: frozenset({MessageStage.REPORTED, MessageStage.WAITING, MessageStage.CONCLUDED}),
    MessageStage.REPORTED: frozenset({MessageStage.WAITING, MessageStage.CONCLUDED}),
}
"""Which stage may follow which."""


class MessageOutcome(BaseModel):
    """What became of a message here."""

    model_config = ConfigDict(frozen=True)

    state: MessageState
    note: str
    at: AwareDatetime
    transport: Transport = "broker"


class MessageFolder:
    """One message on disk."""

    def __init__(self, messages: Path, message: Message) -> None:
        self.message = message
        self.tag = f"message {message.id}"
        self.folder = folder = messages / message.id
        self.prompt = folder / "text"
        self.begun = folder / "begun"
        self._outcome = folder / _OUTCOME
        self._reported = folder / _REPORTED

    @classmethod
    def read(cls, messages: Path, message_id: str) -> MessageFolder:
        """The folder of a message that was kept; FileNotFoundError if there is none."""
        return cls(messages, Message.model_validate_json((messages / message_id / _MESSAGE).read_bytes()))

    @property
    def stage(self) -> MessageStage:
        """How far the message is."""
        if self._outcome.exists():
            return MessageStage.CONCLUDED
        if self._reported.exists():
            return MessageStage.REPORTED
        if (self.folder / _SUBMISSION).exists():
            return MessageStage.BEGUN
        return MessageStage.WAITING if (self.folder / _MESSAGE).exists() else MessageStage.NEW

    @property
    def is_begun(self) -> bool:
        """Its text may be in the program, or was."""
        return (self.folder / _SUBMISSION).exists()

    @property
    def hints(self) -> tuple[str, ...]:
        """What the agent reads beside the words: who says it, and how to answer."""
        message = self.message
        meant = (f"meant for {message.via}",) if message.via else ()
        return f"from {message.sender}", *meant, f'reply: torch-tasks reply --to {message.id} "…"'

    @property
    def outcome(self) -> MessageOutcome | None:
        """What became of it, if that is known."""
        for file in (self._outcome, self._reported):
            if file.exists():
                return MessageOutcome.model_validate_json(file.read_bytes())
        return None

    def keep(self) -> None:
        """Have it on disk."""
        if self.stage is MessageStage.NEW:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_private(self.folder / _MESSAGE, self.message.model_dump_json() + "\n")

    def conclude(self, state: MessageState, note: str, transport: Transport) -> MessageOutcome:
        """Keep what became of it."""
        self.keep()
        self._require(MessageStage.CONCLUDED)
        outcome = MessageOutcome(state=state, note=note, at=now(), transport=transport)
        write_private(self._outcome, outcome.model_dump_json() + "\n")
        return outcome

    def note_reported(self) -> None:
        """The broker knows what became of it."""
        if self.stage is MessageStage.CONCLUDED:
            self._outcome.replace(self._reported)

    def wait_again(self) -> None:
        """Forget what was done with it: the program has nothing of it, or it is to be delivered once more."""
        self._require(MessageStage.WAITING)
        for name in (_SUBMISSION, "pasted", "begun", _OUTCOME, _REPORTED):
            (self.folder / name).unlink(missing_ok=True)

    def _require(self, stage: MessageStage) -> None:
        if stage not in STAGES[self.stage]:
            raise IllegalTransition(f"message {self.message.id} is {self.stage} and cannot be {stage}")


def unreported(messages: Path) -> Iterator[MessageFolder]:
    """The messages of which the broker does not know yet what became of them."""
    for file in sorted(messages.glob(f"*/{_OUTCOME}")):
        yield MessageFolder.read(messages, file.parent.name)


def undelivered(messages: Path) -> Iterator[MessageFolder]:
    """The messages of which a former worker of this agent did not know what became of them, the oldest first."""
    open_ones = (file for file in messages.glob(f"*/{_MESSAGE}") if not _has_outcome(file.parent))
    for file in sorted(open_ones, key=lambda file: file.stat().st_mtime_ns):
        yield MessageFolder.read(messages, file.parent.name)


def _has_outcome(folder: Path) -> bool:
    return any((folder / name).exists() for name in (_REPORTED, _OUTCOME))


def prune_messages(messages: Path, keep_days: float) -> None:
    """Remove the messages that were settled longer ago than this."""
    oldest = time.time() - keep_days * 86400
    for reported in messages.glob(f"*/{_REPORTED}"):
        if reported.stat().st_mtime < oldest:
            shutil.rmtree(reported.parent)


# ── their order ──────────────────────────────────────────────────────────────────────────────────────────────────


class WaitingMessage:
    """A message that waits for the agent."""

    def __init__(self, folder: MessageFolder, entry: InboxEntry | None) -> None:
        self.folder = folder
        self.message = folder.message
        self.entry = entry
        """Its place in the inbox; none if it came past the broker."""
        self.tries = 0
        self.is_counted = False
        """The call to the model that it costs is counted."""

    @property
    def is_emergency(self) -> bool:
        """It overtakes what is none, and is delivered to a paused agent, too."""
        return self.message.priority is Urgency.EMERGENCY

    @property
    def when(self) -> When:
        """When the agent is to get it; an emergency does not wait for it to have nothing to do."""
        return When.NOW if self.is_emergency and self.message.when is When.IDLE else self.message.when


class MessageQueue:
    """The waiting messages in the order of their delivery.

    Emergencies first, then what does not wait for an idle agent, then the order of their coming. A message never
    overtakes one of the same sender and urgency: a pressing one makes the earlier ones press.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, WaitingMessage] = {}
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, folder: MessageFolder, entry: InboxEntry | None) -> None:
        """Have the message wait; one that waits already may get its place in the inbox."""
        with self._changing:
            known = self._waiting.get(folder.message.id)
            if known is None:
                self._waiting[folder.message.id] = WaitingMessage(folder, entry)
            elif entry:
                known.entry = entry

    def remove(self, waiting: WaitingMessage) -> None:
        """It waits no more."""
        with self._changing:
            self._waiting.pop(waiting.message.id, None)

    def first(self) -> WaitingMessage | None:
        """The next message to be delivered."""
        everything = sorted(self._copy(), key=lambda waiting: not waiting.is_emergency)
        pressing = next((waiting for waiting in everything if waiting.when is not When.IDLE), None)
        if pressing is None:
            return next(iter(everything), None)
        return next(waiting for waiting in everything if _stream(waiting) == _stream(pressing))

    def first_pressing(self) -> WaitingMessage | None:
        """The next one, if it does not wait until the agent has nothing to do."""
        first = self.first()
        return first if first and self.when(first) is not When.IDLE else None

    def when(self, waiting: WaitingMessage) -> When:
        """When it is to be delivered, also for the sake of later messages of its sender, which must not overtake it."""
        same = [other.when for other in self._copy() if other.message.sender == waiting.message.sender]
        return max(waiting.when, *same, key=list(When).index)

    def _copy(self) -> list[WaitingMessage]:
        with self._changing:
            return list(self._waiting.values())


def _stream(waiting: WaitingMessage) -> tuple[str, Urgency]:
    return waiting.message.sender, waiting.message.priority


# ── into the pane ────────────────────────────────────────────────────────────────────────────────────────────────


class DeliveryDecision(Enum):
    """What is done with the first message in the queue now."""

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
    """It still answers the message before, and a new prompt would hide the answer."""
    is_working: bool = False
    """It is a program that one can talk with, at work on something."""
    listens_while_working: bool = False


def decide_delivery(when: When, agent: AgentReadiness, *, is_emergency: bool, is_begun: bool) -> DeliveryDecision:
    """Deliver the message if that disturbs nothing that it may not disturb."""
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


_CONCLUSIONS = {
    SubmissionPhase.ACCEPTED: (MessageState.ACKNOWLEDGED, ""),
    SubmissionPhase.INDETERMINATE: (MessageState.DEAD, "cannot tell whether it arrived: "),
    SubmissionPhase.REFUSED: (MessageState.DEAD, "the agent's program did not take it: "),
}


def conclusion(phase: SubmissionPhase, evidence: str) -> tuple[MessageState, str] | None:
    """What became of a message whose submission is this far, and why; nothing while it is on its way.

    A refusal counts only when no further try is left.
    """
    known = _CONCLUSIONS.get(phase)
    return (known[0], known[1] + evidence) if known else None

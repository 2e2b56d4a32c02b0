"""Brings an agent's messages from its inbox and from its folder into its pane, when that disturbs nothing.

One thread fetches, one delivers. Whoever puts something into the pane holds the host's lock; during a task that is the
task's own thread, which delivers in between (see :meth:`MessageCarrier.deliver_during_task`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

import redis

from torch_tasks.broker.connection import connect
from torch_tasks.communication.orchestrator import NovaOrchestrator, flush_outbox
from torch_tasks.errors import BrokerUnreachable, StaleWriter, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import mail_of
from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.message import Message, MessageKind, MessageState, Transport, Urgency, When
from torch_tasks.store.messages import InboxEntry, Inboxes
from torch_tasks.system.loops import Loop
from torch_tasks.transport import pause
from torch_tasks.workers.host.hosted_agent import HostedAgent
from torch_tasks.workers.host.journal import AttemptFolder
from torch_tasks.workers.host.waiting_messages import MessageFolder, MessageOutcome, prune_messages, undelivered, untold
from torch_tasks.workers.programs.questions import decide_permission
from torch_tasks.workers.programs.submission import SubmissionPhase

log = logging.getLogger(__name__)

#: So many messages are held here at most; the others wait in the inbox.
_HELD = 64
#: How long one wait at the inbox lasts, and how often an agent that is not free is looked at.
_WAIT_SECONDS, _LOOK_SECONDS = 15, 0.5
#: How long a message may be on its way into the pane before the next look at what else there is to do.
_CARRY_SECONDS = 60.0
#: How long a program that took a message may look idle before it is taken for done with it.
_UNTOLD_SECONDS = 10.0
#: How long a program may take to show that it got an answer.
_ANSWERED_SECONDS = 3.0
_AWAY = (redis.RedisError, BrokerUnreachable)


class WaitingMessage:
    """A message that waits for the agent."""

    def __init__(self, letter: MessageFolder, entry: InboxEntry | None) -> None:
        self.letter = letter
        self.message = letter.message
        self.entry = entry
        self.tries = 0
        #: The call that it costs is counted.
        self.admitted = False

    @property
    def haste(self) -> When:
        """When the agent is to get it; an emergency does not wait for it to have nothing to do."""
        emergency = self.message.priority is Urgency.EMERGENCY
        return When.NOW if emergency and self.message.when is When.IDLE else self.message.when


class MessageCarrier:
    """What waits for the agent of this worker."""

    def __init__(self, agent: HostedAgent, fleet: Fleet, pane_lock: threading.Lock) -> None:
        self._agent = agent
        self._fleet = fleet
        self._inboxes = fleet.inboxes
        self._letterbox = Inboxes(connect(fleet.settings.broker(), wait_seconds=_WAIT_SECONDS), fleet.settings)
        self._pane_lock = pane_lock
        self._folder = agent.presence.folder / "letters"
        self._items: dict[str, WaitingMessage] = {}
        self._untold: dict[str, MessageFolder] = {}
        self._changing = threading.Lock()
        self._opened = False
        self._fetching = self._loop("mail in", self._fetch)
        self._carrying = self._loop("mail out", self._carry)
        self._answering: MessageFolder | None = None
        self._taken_at = 0.0
        self._attending = PermissionAnswerer(agent)

    def start(self) -> None:
        """Begin to fetch and to carry; both end with this process."""
        self._folder.mkdir(exist_ok=True)
        prune_messages(self._folder, self._fleet.settings.result_days)
        for letter in undelivered(self._folder):
            self._add(letter, None)
        self._untold = {letter.message.id: letter for letter in untold(self._folder)}
        self._answering = self._unanswered()
        self._carrying.start()
        self._fetching.start()

    def _loop(self, name: str, play_round: Callable[[], float | None]) -> Loop:
        expected = (TorchError, OSError, redis.RedisError)
        return Loop(name, play_round, until=lambda: self._leaving, expected=expected, longest_retry_seconds=1.0)

    @property
    def waits(self) -> bool:
        """A message is here that the agent has not got, or an answer that has not been told."""
        return bool(self._items or self._answering)

    def look(self) -> None:
        """Something has happened in the pane or in the folder."""
        self._carrying.wake()

    # ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _fetch(self) -> None:
        opened, self._opened = self._opened, False  # after an error it may be another broker
        if not opened:
            self._inboxes.open(self._agent_id)
            self._take(self._inboxes.fetch(self._agent_id, again=True))
        self._tell_outcomes()
        flush_outbox(self._fleet)
        full = len(self._items) >= _HELD
        self._take(self._letterbox.fetch(self._agent_id, emergencies_only=full, wait_ms=_WAIT_SECONDS * 1000))
        self._opened = True

    def _take(self, entries: list[InboxEntry]) -> None:
        records = self._inboxes.records(entry.message_id for entry in entries)
        for entry, record in zip(entries, records, strict=True):
            if record is None:
                self._inboxes.drop(entry)
            else:
                self._add(MessageFolder(self._folder, record.message), entry)
        if entries:
            self._carrying.wake()

    def _add(self, letter: MessageFolder, entry: InboxEntry | None) -> None:
        with self._changing:
            known = self._items.get(letter.message.id)
            if known is None:
                self._items[letter.message.id] = WaitingMessage(letter, entry)
            elif entry:
                known.entry = entry

    def _take_from_folder(self) -> None:
        """What came past the broker; it is the agent's once it is a letter."""
        for file in mail_of(self._agent.presence.folder):
            letter = MessageFolder(self._folder, Message.model_validate_json(file.read_bytes()))
            if letter.outcome() is None:
                letter.keep()
                self._add(letter, None)
            file.unlink()

    def _tell_outcomes(self) -> None:
        for letter in list(self._untold.values()):
            if outcome := letter.outcome():
                self._settle(letter, outcome, None)

    # ── carrying ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _carry(self) -> float:
        self._take_from_folder()
        busy = bool(self._items or self._answering)
        if busy and self._pane_lock.acquire(blocking=False):
            try:
                self.deliver_before_task()
            finally:
                self._pane_lock.release()
        return _LOOK_SECONDS if self._items or self._answering else math.inf

    def deliver_before_task(self) -> None:
        """Put what waits into the pane, as far as the agent is free for it. The caller holds the pane."""
        self._note_answer()
        while (item := self._next()) and self._is_free_for(item):
            if not self._deliver(item):
                return

    def last_is_answered(self) -> bool:
        """What the program answered to its last message is known; a task's prompt would hide it."""
        self._note_answer()
        return self._answering is None

    def deliver_during_task(self, run: AttemptFolder) -> None:
        """The same for what does not wait until the task of this run is over."""
        if not self._items:
            return
        for item in self._pressing():
            with contextlib.suppress(TorchError):
                if not self._is_free_for(item) or not self._deliver(item, run):
                    return

    def _next(self) -> WaitingMessage | None:
        """The next in the order of their coming, emergencies first."""
        with self._changing:
            items = sorted(self._items.values(), key=lambda item: item.message.priority is not Urgency.EMERGENCY)
        pressing = [item for item in items if item.haste is not When.IDLE]
        return self._first_of_sender(pressing[0], items) if pressing else next(iter(items), None)

    def _pressing(self) -> Iterator[WaitingMessage]:
        while (item := self._next()) and self._haste(item) is not When.IDLE:
            yield item

    def _haste(self, item: WaitingMessage) -> When:
        """Its own, or that of a later message of the same sender, which must not overtake it."""
        with self._changing:
            same = [other.haste for other in self._items.values() if other.message.sender == item.message.sender]
        return max(item.haste, *same, key=list(When).index)

    @staticmethod
    def _first_of_sender(item: WaitingMessage, items: list[WaitingMessage]) -> WaitingMessage:
        """What the same sender said before comes before."""
        same = (one for one in items if (one.message.sender, one.message.priority) == _stream(item))
        return next(same, item)

    def _is_free_for(self, item: WaitingMessage) -> bool:
        """The program takes the message now without anything being disturbed that the message may not disturb."""
        kind, terminal = self._agent.kind, self._agent.terminal
        if self._leaving or not terminal.alive or (kind.is_conversational and pause.left) or self._waits(item):
            return False
        haste = self._haste(item)
        if kind.is_free(terminal.pane):
            # A new prompt hides what is told of the one before.
            return self._answering is None or not kind.reports_turns or haste is not When.IDLE
        if self._letter_begun(item):
            return True
        if not kind.is_conversational or haste is When.IDLE or kind.read(terminal.pane).state is not AgentState.WORKING:
            return False
        if haste is When.INTERRUPT:
            kind.interrupt(terminal.pane, force=False)
            return terminal.wait_for(lambda: kind.is_free(terminal.pane), self._fleet.settings.interrupt_seconds)
        return kind.listens_while_working

    def _waits(self, item: WaitingMessage) -> bool:
        """The agent is stopped, or paused and it is no emergency; what is on its way already comes to its end."""
        holds, emergency = self._agent.holds, item.message.priority is Urgency.EMERGENCY
        return holds.stop is not None or (holds.paused is not None and not emergency and not self._letter_begun(item))

    @staticmethod
    def _letter_begun(item: WaitingMessage) -> bool:
        return (item.letter.folder / "submission.json").exists()

    # ── one message ──────────────────────────────────────────────────────────────────────────────────────────────

    def _deliver(self, item: WaitingMessage, beside: AttemptFolder | None = None) -> bool:
        """Bring a message into the program; false if it has to wait."""
        letter = item.letter
        outcome = letter.outcome()
        item.admitted = item.admitted or bool(outcome) or self._letter_begun(item) or self._agent.quota.admits()
        if not item.admitted:
            return False
        if outcome is None or not outcome.state.arrived:  # given up once, it may have been replayed
            outcome = self._refused(item)
        if outcome is None:
            letter.keep()
            if letter.outcome():
                letter.begin_anew()
            (self._agent.presence.folder / "letter").write_text(f"{item.message.id}\n")
            outcome = self._hand(item, beside)
        if outcome is None:
            return False
        with self._changing:
            self._items.pop(item.message.id, None)
        self._settle(letter, outcome, item.entry)
        return True

    def _refused(self, item: WaitingMessage) -> MessageOutcome | None:
        """Whether the broker knows why the message is not to be delivered."""
        try:
            state = self._inboxes.stage(item.message.id, self._agent.presence.info)
        except _AWAY:
            return None
        except StaleWriter as error:
            log.warning("%s", error)
            raise
        if state in ("staged", "missing"):  # what came past the broker is not known to it
            return None
        note = "its time was over before it could be delivered" if state == "expired" else ""
        return item.letter.conclude(MessageState(state), note, "broker")

    def _hand(self, item: WaitingMessage, beside: AttemptFolder | None) -> MessageOutcome | None:
        """Step by step, until the program has taken it or it is plain that it does not; nothing if it has to wait."""
        letter, kind, pane = item.letter, self._agent.kind, self._agent.terminal.pane
        transport: Transport = "broker" if item.entry else "fallback"
        deadline = time.monotonic() + _CARRY_SECONDS
        while not self._leaving and time.monotonic() < deadline:
            submission = kind.hand_message(pane, letter, beside)
            said = submission.steps[-1].evidence
            if submission.phase is SubmissionPhase.ACCEPTED:
                self._answering, self._taken_at = (letter if kind.is_conversational else None), time.monotonic()
                self._agent.presence.show(kind.read(pane).state, task=self._agent.presence.info.current_task)
                return letter.conclude(MessageState.ACKNOWLEDGED, said, transport)
            if submission.phase is SubmissionPhase.INDETERMINATE:
                return letter.conclude(MessageState.DEAD, f"cannot tell whether it arrived: {said}", transport)
            if submission.phase is SubmissionPhase.REFUSED:
                letter.begin_anew()
                item.tries += 1
                if item.tries < self._fleet.settings.message_tries:
                    return None
                return letter.conclude(MessageState.DEAD, f"the agent's program did not take it: {said}", transport)
            untouched = submission.phase is SubmissionPhase.INTENDED and not submission.pastes
            if untouched and not kind.is_free(pane) and not kind.listens_while_working:
                letter.begin_anew()  # somebody was quicker; nothing of it is in the pane
                return None
            if not self._agent.terminal.alive:
                return None
            self._agent.bell.wait(0.02 if submission.seconds_in_phase < 5 else 0.25)
        return None

    def _settle(self, letter: MessageFolder, outcome: MessageOutcome, entry: InboxEntry | None) -> None:
        """Tell the broker what became of the message; while it is away, later."""
        try:
            self._inboxes.settle(
                letter.message,
                outcome.state,
                by=self._agent.presence.info,
                entry=entry,
                note=outcome.note,
                transport=outcome.transport,
                delivered_ago=(now() - outcome.at).total_seconds() if outcome.state.arrived else None,
            )
        except (*_AWAY, StaleWriter) as error:
            self._untold[letter.message.id] = letter
            log.warning("%s: message %s: %s", self._agent_id, letter.message.id, error)
        else:
            letter.told()
            self._untold.pop(letter.message.id, None)

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

    def _note_answer(self) -> None:
        """The program's own answer to the last message is the reply to a question that got no other."""
        letter = self._answering
        if letter is None or not self._agent.terminal.alive:
            return
        said = self._agent.kind.message_answer(letter)
        just_taken = self._agent.kind.reports_turns and time.monotonic() - self._taken_at < _UNTOLD_SECONDS
        self._attending.look(letter)
        if said and letter.message.kind is MessageKind.QUESTION:
            self._reply(letter.message, said)
        # Its screen may show a moment longer that it works.
        if (said is None and just_taken) or not self._agent.kind.is_free(self._agent.terminal.pane):
            return
        self._answering = None
        self._attending.look(letter)

    def _unanswered(self) -> MessageFolder | None:
        """The question that a former worker of this agent had it get last, if that is not answered."""
        with contextlib.suppress(FileNotFoundError):
            last = (self._agent.presence.folder / "letter").read_text().strip()
            letter = MessageFolder.read(self._folder, last)
            outcome = letter.outcome()
            if outcome and outcome.state.arrived and letter.message.kind is MessageKind.QUESTION:
                return letter
        return None

    def _reply(self, message: Message, said: str) -> None:
        try:
            if self._inboxes.get(message.id).reply is None:
                NovaOrchestrator(self._agent_id).reply(message.id, said, id=f"{message.id}.reply")
        except (*_AWAY, TorchError) as error:
            log.warning("%s: the reply to %s is not sent: %s", self._agent_id, message.id, error)

    @property
    def _agent_id(self) -> str:
        return self._agent.presence.info.agent_id

    @property
    def _leaving(self) -> bool:
        return self._agent.orders.leaving


def _stream(item: WaitingMessage) -> tuple[str, Urgency]:
    return item.message.sender, item.message.priority


class PermissionAnswerer:
    """Looks after one agent between its tasks."""

    def __init__(self, agent: HostedAgent) -> None:
        self._agent = agent
        self._answered_at = 0.0

    def look(self, letter: MessageFolder) -> None:
        """Tell the fleet what the program does, and answer what the kind's policy answers."""
        kind, pane = self._agent.kind, self._agent.terminal.pane
        reading = kind.read(pane)
        if reading.state is not self._agent.presence.info.state:
            self._agent.presence.show(reading.state)
        question = kind.message_question(pane, letter)
        if question is None or time.monotonic() - self._answered_at < _ANSWERED_SECONDS:
            return
        if decision := decide_permission(question, None, kind.config.permissions):
            allowed, why = decision
            if kind.answer(pane, question, "allow" if allowed else "deny"):
                self._answered_at = time.monotonic()
                log.info("%s: %s %s", kind.agent_id, "allowed" if allowed else "denied", f"by {why}")

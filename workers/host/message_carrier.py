"""Brings an agent's messages from its inbox and from its folder into its pane, when that disturbs nothing.

One thread fetches, one delivers. A thread that types into the pane holds the host's lock: during a task, that is the
task's own thread.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable

from torch_tasks.broker.connection import connect
from torch_tasks.communication.messenger import Messenger, flush_outbox
from torch_tasks.communication.signed_messages import require_believed
from torch_tasks.errors import BrokerAway, SignatureRefused, StaleWriter, TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import mail_in
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.message import Message, MessageKind, MessageState
from torch_tasks.state_folder import LAST_MESSAGE, MESSAGE_SPAN
from torch_tasks.store.messages import InboxEntry, Inboxes
from torch_tasks.system.loops import Loop
from torch_tasks.system.tally import tally
from torch_tasks.workers.folders import (
    AttemptFolder,
    MessageFolder,
    MessageOutcome,
    prune_messages,
    undelivered,
    unreported,
)
from torch_tasks.workers.host.cut_off import CutOffMessage
from torch_tasks.workers.host.hosted_agent import HostedAgent
from torch_tasks.workers.host.waiting_messages import (
    CANNOT_TELL,
    AgentReadiness,
    DeliveryDecision,
    MessageQueue,
    WaitingMessage,
    conclusion,
    decide_delivery,
)
from torch_tasks.workers.programs.kind import Continuation
from torch_tasks.workers.programs.questions import decide_permission
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase

log = logging.getLogger(__name__)

#: How many messages are held here at most; the others wait in the inbox.
_HELD = 64
#: How long one wait at the inbox lasts, and how often an agent that is not free is checked.
_WAIT_SECONDS, _LOOK_SECONDS = 15, 0.5
#: How long one try to put a message into the pane may last.
_CARRY_SECONDS = 60.0
#: How long a program that took a message may look idle before it counts as done with it.
_IDLE_SECONDS = 10.0
#: How long a program may take to show that it got an answer.
_ANSWERED_SECONDS = 3.0

_UNKNOWN = (
    "The program of {agent} was killed while it worked on this, and the next one cannot go on with it. Whether "
    "anything of it was done is unknown; ask again if it still matters."
)
"""The reply to a question of which that is so."""


class MessageCarrier:
    """The messages of the agent of this worker."""

    def __init__(self, agent: HostedAgent, fleet: Fleet, pane_lock: threading.Lock) -> None:
        self._agent = agent
        self._fleet = fleet
        self._inboxes = fleet.inboxes
        self._waiting_inboxes = Inboxes(connect(fleet.settings.broker(), wait_seconds=_WAIT_SECONDS), fleet.settings)
        self._pane_lock = pane_lock
        self._folder = agent.presence.folder / "messages"
        self._last_file = agent.presence.folder / LAST_MESSAGE
        self._span_file = agent.presence.folder / MESSAGE_SPAN
        self._queue = MessageQueue()
        self._unreported: dict[str, MessageFolder] = {}
        #: The message that the program works on since it took it.
        self._answering: MessageFolder | None = None
        self._taken_at = 0.0
        self._permissions = PermissionAnswerer(agent)
        self._inbox_is_open = False
        self._fetching = self._loop("fetch messages", self._fetch)
        self._delivering = self._loop("deliver messages", self._deliver_between_tasks)

    def _loop(self, name: str, play_round: Callable[[], float | None]) -> Loop:
        return Loop(name, play_round, until=lambda: self._leaving, longest_retry_seconds=1.0)

    def start(self) -> None:
        """Begin to fetch and to deliver; both end with this worker."""
        self._folder.mkdir(exist_ok=True)
        prune_messages(self._folder, self._fleet.settings.result_days)
        for folder in undelivered(self._folder):
            self._queue.add(folder, None)
        self._unreported = {folder.message.id: folder for folder in unreported(self._folder)}
        self._work_on(self._unanswered())
        self._fetching.start()
        self._delivering.start()

    @property
    def has_work(self) -> bool:
        """Whether a message waits here, or the agent still answers one."""
        return bool(self._queue or self._answering)

    def look(self) -> None:
        """Something has happened in the pane or in the folder: deliver what can be delivered now."""
        self._delivering.wake()

    # ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _fetch(self) -> None:
        is_open, self._inbox_is_open = self._inbox_is_open, False  # after an error it may be another broker
        if not is_open:
            self._inboxes.open(self._agent_id)
            self._take(self._inboxes.fetch(self._agent_id, again=True))
        for folder in list(self._unreported.values()):
            if outcome := folder.outcome:
                self._report(folder, outcome, None)
        flush_outbox(self._fleet)
        is_full = len(self._queue) >= _HELD
        wait_ms = _WAIT_SECONDS * 1000
        self._take(self._waiting_inboxes.fetch(self._agent_id, emergencies_only=is_full, wait_ms=wait_ms))
        self._inbox_is_open = True

    def _take(self, entries: list[InboxEntry]) -> None:
        records = self._inboxes.records(entry.message_id for entry in entries)
        for entry, record in zip(entries, records, strict=True):
            if record is None:
                self._inboxes.drop(entry)
            elif not self._is_refused(record.message, entry):
                self._queue.add(MessageFolder(self._folder, record.message), entry)
        if entries:
            self.look()

    def _is_refused(self, message: Message, entry: InboxEntry) -> bool:
        why = Messenger().why_refused(message, entry.message_id, self._agent_id, entry)
        if why:
            log.error("a message from %s is refused: %s", message.sender, why)
        return why is not None

    def _take_from_folder(self) -> None:
        """Take the messages that did not come through the broker; each is the agent's once it has its own folder."""
        for file in mail_in(self._agent.presence.folder):
            message = Message.model_validate_json(file.read_bytes())
            try:
                require_believed(message, message.id, self._agent_id)
            except SignatureRefused as error:
                log.error("a message in the folder of %s is refused: %s", self._agent_id, error)
                file.unlink()
                continue
            folder = MessageFolder(self._folder, message)
            if folder.outcome is None:
                folder.keep()
                self._queue.add(folder, None)
            file.unlink()

    # ── delivering ───────────────────────────────────────────────────────────────────────────────────────────────

    def _deliver_between_tasks(self) -> float:
        self._take_from_folder()
        if self.has_work and self._take_pane():
            try:
                self.deliver_before_task()
            finally:
                self._pane_lock.release()
        return _LOOK_SECONDS if self.has_work else math.inf

    def _take_pane(self) -> bool:
        """Take the pane's lock, which a task's thread holds for long, and who looks after the agent for a moment."""
        has_task = self._agent.presence.journal.current is not None
        return self._pane_lock.acquire(timeout=0 if has_task else _LOOK_SECONDS)

    def deliver_before_task(self) -> None:
        """Put into the pane what the agent is free for. The caller holds the pane's lock."""
        self._note_answer()
        while (waiting := self._queue.first()) and self._is_free_for(waiting):
            if not self._deliver(waiting):
                return

    def deliver_during_task(self, attempt: AttemptFolder) -> None:
        """Put into the pane what does not wait until the attempt's task is over."""
        with contextlib.suppress(TorchError):  # the next look tries again
            while (waiting := self._queue.first_pressing()) and self._is_free_for(waiting):
                if not self._deliver(waiting, attempt):
                    return

    def last_is_answered(self) -> bool:
        """Whether the program has answered its last message; a task's prompt would hide the answer."""
        self._note_answer()
        return self._answering is None

    def _is_free_for(self, waiting: WaitingMessage) -> bool:
        """Whether the program takes the message now; if the message demands it, the program is interrupted first."""
        kind, terminal, when = self._agent.kind, self._agent.terminal, self._queue.when(waiting)
        if self._leaving or terminal.keyboard.person or not terminal.is_alive:
            return False
        if kind.is_conversational and self._agent.intake.seconds_left:
            return False
        begun, emergency = waiting.folder.is_begun, waiting.is_emergency
        decision = decide_delivery(when, self._readiness(), is_emergency=emergency, is_begun=begun)
        if decision is DeliveryDecision.INTERRUPT:
            kind.interrupt(terminal.pane, force=False)
            return terminal.wait_for(lambda: kind.is_free(terminal.pane), self._fleet.settings.interrupt_seconds)
        return decision is DeliveryDecision.DELIVER

    def _readiness(self) -> AgentReadiness:
        kind, pane, holds = self._agent.kind, self._agent.terminal.pane, self._agent.holds
        is_free = kind.is_free(pane)
        return AgentReadiness(
            is_stopped=holds.stop is not None,
            is_paused=holds.paused is not None,
            is_free=is_free,
            is_answering=self._answering is not None and kind.reports_turns,
            is_working=not is_free and kind.is_conversational and kind.read(pane).state is AgentState.WORKING,
            listens_while_working=kind.listens_while_working,
        )

    # ── one message ──────────────────────────────────────────────────────────────────────────────────────────────

    def _deliver(self, waiting: WaitingMessage, beside: AttemptFolder | None = None) -> bool:
        """Bring a message into the program; false if it has to wait."""
        folder = waiting.folder
        outcome = folder.outcome
        if not (waiting.is_counted or outcome or folder.is_begun or self._agent.quota.admits()):
            return False
        waiting.is_counted = True
        if outcome is None or not outcome.state.arrived:  # given up once, it may have been replayed
            outcome = self._refusal_by_broker(waiting)
        if outcome is None:
            folder.keep()
            if folder.outcome:
                folder.wait_again()
            self._last_file.write_text(f"{waiting.message.id}\n")
            outcome = self._put_into_program(waiting, beside)
        if outcome is None:
            return False
        self._queue.remove(waiting)
        self._report(folder, outcome, waiting.entry)
        return True

    def _refusal_by_broker(self, waiting: WaitingMessage) -> MessageOutcome | None:
        """Why the message must not be delivered according to the broker, if so."""
        try:
            state = self._inboxes.stage(waiting.message.id, self._agent.presence.info)
        except BrokerAway:
            return None
        except StaleWriter as error:
            log.warning("%s", error)
            raise
        if state in ("staged", "missing"):  # missing: it did not come through the broker
            return None
        note = "it expired before it could be delivered" if state == "expired" else ""
        return waiting.folder.conclude(MessageState(state), note, "broker")

    def _put_into_program(self, waiting: WaitingMessage, beside: AttemptFolder | None) -> MessageOutcome | None:
        """Go on until the program has taken it or certainly will not; nothing if the message must wait."""
        folder, kind, terminal = waiting.folder, self._agent.kind, self._agent.terminal
        deadline = time.monotonic() + _CARRY_SECONDS
        while not self._leaving and time.monotonic() < deadline:
            submission = kind.hand_message(terminal.pane, folder, beside)
            if submission.phase is SubmissionPhase.REFUSED:
                folder.wait_again()
                waiting.tries += 1
                if waiting.tries < self._fleet.settings.message_tries:
                    return None
            if ended := conclusion(submission.phase, submission.steps[-1].evidence):
                if submission.phase is SubmissionPhase.ACCEPTED:
                    self._note_accepted(folder, is_alone=beside is None)
                return folder.conclude(*ended, "broker" if waiting.entry else "fallback")
            if self._is_pane_taken(submission):
                folder.wait_again()
                return None
            if not terminal.is_alive:
                return None
            self._agent.bell.wait(0.02 if submission.seconds_in_phase < 5 else 0.25)
        return None

    def _note_accepted(self, folder: MessageFolder, *, is_alone: bool) -> None:
        kind, presence = self._agent.kind, self._agent.presence
        if is_alone and kind.is_conversational:
            CutOffMessage(self._agent, folder).note_taken()
        self._work_on(folder if kind.is_conversational else None)
        self._taken_at = time.monotonic()
        presence.show(kind.read(self._agent.terminal.pane).state, task=presence.info.current_task)

    def _work_on(self, folder: MessageFolder | None) -> None:
        """Note that the program works on a message, or on none; what it does meanwhile is of the message's trace."""
        self._answering = folder
        if folder and folder.message.span:
            self._span_file.write_text(folder.message.span)
        else:
            self._span_file.unlink(missing_ok=True)

    def _is_pane_taken(self, submission: Submission) -> bool:
        """Something else got into the pane first, and nothing of the message is there."""
        kind, pane = self._agent.kind, self._agent.terminal.pane
        untouched = submission.phase is SubmissionPhase.INTENDED and not submission.pastes
        return untouched and not kind.is_free(pane) and not kind.listens_while_working

    def _report(self, folder: MessageFolder, outcome: MessageOutcome, entry: InboxEntry | None) -> None:
        """Report to the broker what became of the message; while it is away, later."""
        try:
            self._inboxes.settle(
                folder.message,
                outcome.state,
                by=self._agent.presence.info,
                entry=entry,
                note=outcome.note,
                transport=outcome.transport,
                delivered_ago=(now() - outcome.at).total_seconds() if outcome.state.arrived else None,
            )
        except (BrokerAway, StaleWriter) as error:
            self._unreported[folder.message.id] = folder
            log.warning("%s: message %s: %s", self._agent_id, folder.message.id, error)
        else:
            folder.note_reported()
            self._count(folder.message, outcome)
            self._unreported.pop(folder.message.id, None)

    def _count(self, message: Message, outcome: MessageOutcome) -> None:
        role = self._agent.presence.info.role
        with tally().at_once():
            tally().count(metrics.MESSAGES_SETTLED, role=role, state=outcome.state)
            if outcome.state.arrived:
                tally().observe(metrics.MESSAGE_SECONDS, outcome.at.timestamp() - message.timestamp, role=role)
            elif outcome.note.startswith(CANNOT_TELL):
                tally().count(metrics.UNKNOWN_DELIVERIES, role=role, what="message")

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

    def _note_answer(self) -> None:
        """Send the program's answer to its last message as the reply, if that was a question without a reply."""
        folder, kind = self._answering, self._agent.kind
        if folder is None or not self._agent.terminal.is_alive:
            return
        if not self._has_program(folder):
            return
        answer = kind.message_answer(folder)
        just_taken = kind.reports_turns and time.monotonic() - self._taken_at < _IDLE_SECONDS
        self._permissions.look(folder)
        if answer and folder.message.kind is MessageKind.QUESTION:
            self._reply(folder.message, answer)
        # The screen may show for a moment longer that it works.
        if (answer is None and just_taken) or not kind.is_free(self._agent.terminal.pane):
            return
        self._work_on(None)
        folder.note_over()
        self._permissions.look(folder)

    def _has_program(self, folder: MessageFolder) -> bool:
        """Whether the program in the pane works on the message; one that has replaced it takes the message up."""
        cut_off, kind, pane = CutOffMessage(self._agent, folder), self._agent.kind, self._agent.terminal.pane
        if cut_off.is_open:
            holds = self._agent.holds
            is_held = holds.stop is not None or holds.paused is not None or self._agent.intake.seconds_left
            if kind.is_free(pane) and not is_held:
                self._take_up(folder, cut_off)
            return False
        if folder.taken and folder.taken.is_resumed:
            phase = kind.hand_message(pane, folder, None).phase
            if phase in (SubmissionPhase.REFUSED, SubmissionPhase.INDETERMINATE):
                self._give_up(folder)
            return phase is SubmissionPhase.ACCEPTED
        return True

    def _take_up(self, folder: MessageFolder, cut_off: CutOffMessage) -> None:
        """Its program was killed: have the next one go on with it, or say that it is not known what became of it."""
        how, answer = cut_off.take_up()
        log.warning(
            "%s: its program was killed while it worked on message %s; %s", self._agent_id, folder.message.id, how
        )
        if how is Continuation.RESUMED:
            self._agent.quota.count_call()
            self._taken_at = time.monotonic()
        elif how is Continuation.NOT_KEPT:
            self._give_up(folder)
        else:
            if folder.message.kind is MessageKind.QUESTION:
                self._reply(folder.message, answer)
            self._work_on(None)
            folder.note_over()

    def _give_up(self, folder: MessageFolder) -> None:
        self._work_on(None)
        folder.note_over()
        if folder.message.kind is MessageKind.QUESTION:
            self._reply(folder.message, _UNKNOWN.format(agent=self._agent_id))

    def _unanswered(self) -> MessageFolder | None:
        """The last message that a former worker delivered, if a program may still work on it or a reply is due."""
        with contextlib.suppress(FileNotFoundError):
            folder = MessageFolder.read(self._folder, self._last_file.read_text().strip())
            outcome = folder.outcome
            is_due = folder.taken is not None or folder.message.kind is MessageKind.QUESTION
            if outcome and outcome.state.arrived and is_due:
                return folder
        return None

    def _reply(self, message: Message, answer: str) -> None:
        try:
            if self._inboxes.get(message.id).reply is None:
                Messenger(self._agent_id).reply(message.id, answer, id=f"{message.id}.reply")
        except TorchError as error:
            log.warning("%s: could not send the reply to %s: %s", self._agent_id, message.id, error)

    @property
    def _agent_id(self) -> str:
        return self._agent.presence.info.agent_id

    @property
    def _leaving(self) -> bool:
        return self._agent.life.is_leaving


class PermissionAnswerer:
    """Answers permission questions by the kind's policy while a program works on a message and has no task."""

    def __init__(self, agent: HostedAgent) -> None:
        self._agent = agent
        self._answered_at = 0.0

    def look(self, folder: MessageFolder) -> None:
        """Show the fleet what the program does, and answer its question if the policy has an answer."""
        kind, pane = self._agent.kind, self._agent.terminal.pane
        reading = kind.read(pane)
        if reading.state is not self._agent.presence.info.state and not self._agent.terminal.held_up:
            self._agent.presence.show(reading.state)
        question = kind.message_question(pane, folder)
        if question is None or time.monotonic() - self._answered_at < _ANSWERED_SECONDS:
            return
        if decision := decide_permission(question, None, kind.config.permissions):
            allowed, why = decision
            if kind.answer(pane, question, "allow" if allowed else "deny"):
                self._answered_at = time.monotonic()
                log.info("%s: %s %s", kind.agent_id, "allowed" if allowed else "denied", f"by {why}")

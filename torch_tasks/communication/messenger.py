"""Sending messages: to whom, which way, and what the sender can find out afterwards."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from pybreaker import CircuitBreaker, CircuitBreakerError

from torch_tasks import keys
from torch_tasks.caller import OPERATOR, caller
from torch_tasks.communication.policy import manager_of, policy
from torch_tasks.communication.signed_messages import require_believed, signed
from torch_tasks.errors import (
    BrokerForgot,
    BrokerUnreachable,
    InboxFull,
    InvalidMessage,
    LedgerOff,
    MessageRefused,
    NotDelivered,
    SenderLimit,
    SignatureRefused,
    UnknownRecipient,
)
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.machine.agent_folder import is_hosted, put_mail
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.broker_address import file_name_of
from torch_tasks.model.broker_moves import former_places
from torch_tasks.model.durations import local_time
from torch_tasks.model.message import Message, MessageKind, MessageRecord, MessageState, Sent, id_for
from torch_tasks.model.near import did_you_mean
from torch_tasks.store.message_audit import AuditEntry, AuditKind
from torch_tasks.store.messages import InboxEntry, Inboxes, role_named
from torch_tasks.store.outbox import Outbox

_BREAKER = CircuitBreaker(fail_max=1, reset_timeout=2, exclude=[lambda error: not isinstance(error, BrokerUnreachable)])
"""Open while the broker is away, so that the next messages do not wait for it again."""

_AUDITED: dict[type[BaseException], AuditKind] = {
    MessageRefused: AuditKind.REFUSED,
    InvalidMessage: AuditKind.INVALID,
    UnknownRecipient: AuditKind.UNKNOWN,
    InboxFull: AuditKind.FULL,
    SenderLimit: AuditKind.FULL,
}
"""The errors for which a message was not sent, as the audit names them."""


class Messenger:
    """Sends and reads messages in the name of one party: by default the caller.

    What waits here waits a number of seconds at most; who wants to wait longer asks again.
    """

    def __init__(self, sender: str | None = None) -> None:
        self.sender = sender or caller().name

    def send(self, target: str, text: str, *, role: str | None = None, **how: Any) -> Sent:
        """Send a text to an agent, which must have the ``role`` if one is named; ``how`` are fields of the message.

        Sending the same ``id`` twice sends one message. While the broker is away, an agent of this machine gets the
        message from its worker, and one for another machine waits on the disk. Raises :class:`UnknownRecipient`,
        :class:`InvalidMessage`, :class:`MessageRefused` or :class:`InboxFull`; then nothing was sent.
        """
        own = caller()
        incarnation = own.incarnation if self.sender == own.agent else None
        built = Message.build(sender=self.sender, target=target, message=text, incarnation=incarnation, **how)
        return self._send(built.within(self._fleet.settings.message_limit_bytes), role)

    def await_reply(self, message_id: str, seconds: float) -> MessageRecord | None:
        """The reply to a question, which counts as read; None if there is none in so many seconds.

        :class:`NotDelivered` if the question was given up, or its time was over.
        """
        self._flush_outbox()
        for record in self._inboxes.changes(message_id, time.monotonic() + seconds):
            if record.reply:
                reply = self._inboxes.get(record.reply)
                if why := self.why_refused(reply.message, record.reply, record.message.sender):
                    raise NotDelivered(f"the reply to {message_id} is refused: {why}")
                # Read by this call, so it is not typed into the asking agent's pane as well.
                self._inboxes.settle(reply.message, MessageState.READ)
                return reply
            if record.state in (MessageState.EXPIRED, MessageState.DEAD):
                asked = record.message.via or record.message.target
                raise NotDelivered(f"the question {message_id} to {asked} is {record.state}: {record.note}")
        return None

    def reply(self, message_id: str, text: str, **how: Any) -> Sent:
        """Answer a message: its sender gets the text, and the message counts as read.

        The reply to a message of a trace is a part of it.
        """
        self._flush_outbox()
        asked = self._inboxes.get(message_id).message
        options = {"kind": MessageKind.REPLY, "correlation_id": asked.correlation_id, "reply_to": asked.id}
        within = {"traceparent": asked.span} if asked.span else {}
        return self.send(asked.sender, text, **{**options, **how, **within})

    def broadcast(
        self,
        text: str,
        *,
        role: str | None = None,
        skills: Iterable[str] = (),
        project: str | None = None,
        id: str | None = None,  # noqa: A002 - the message's own word
        **how: Any,
    ) -> list[Sent]:
        """Send a text to every online agent that matches; :class:`MessageRefused` after too many broadcasts.

        The messages of the same ``id`` reach each agent once.
        """
        wanted = role_named(role) if role else None
        self._flush_outbox()
        found = [
            info
            for info in self._fleet.registry.agents()
            if info.online
            and info.agent_id != self.sender
            and info.serves(wanted, skills)
            and (project is None or is_working_in(info, project))
        ]
        if not found:
            raise UnknownRecipient("no agent is online that matches; 'torch-tasks agents' lists those that are")
        self._limit_broadcasts()
        # What was said to all is one matter.
        matter = uuid.uuid4().hex if id is None else id_for(id)
        options = {"correlation_id": matter, **how}
        return [
            self.send(info.agent_id, text, **options, id=None if id is None else id_for(id, info.agent_id))
            for info in found
        ]

    def post(self, message: Message) -> Sent:
        """Put a message into an inbox, or raise; it never waits here for the broker, for the caller tries again.

        Raises as :meth:`send`, the errors of redis-py while the broker is away, and :class:`BrokerForgot` if
        the broker may have forgotten the receiver.
        """
        message = message.within(self._fleet.settings.message_limit_bytes)
        policy().check(message)
        try:
            target, note, message = self._addressed(signed(message), None)
        except UnknownRecipient as error:
            if not self._fleet.registry.has_heard_all():
                raise BrokerForgot(str(error)) from None
            raise
        file = self._outbox.keep(message) if self._fleet.settings.ledger else None
        try:
            sent = self._accepted(message, target, note)
        except BaseException:
            if file:
                self._outbox.drop(file)
            raise
        if file:
            self._outbox.accepted(file)
        return sent

    def inbox(self, party: str | None = None) -> list[MessageRecord]:
        """The messages that wait for this party, emergencies first."""
        self._flush_outbox()
        entries = self._inboxes.waiting(party or self.sender)
        records = self._inboxes.records(entry.message_id for entry in entries)
        found: list[MessageRecord] = []
        for entry, record in zip(entries, records, strict=True):
            if record is None or record.state is MessageState.READ:
                self._inboxes.drop(entry)
            elif not self.why_refused(record.message, entry.message_id, party or self.sender, entry):
                found.append(record)
        return found

    def why_refused(
        self, message: Message, message_id: str, receiver: str, entry: InboxEntry | None = None
    ) -> str | None:
        """Why nobody may believe this message, if so; then it is noted, and an ``entry`` leaves the inbox."""
        try:
            require_believed(message, message_id, receiver)
            return None
        except SignatureRefused as error:
            why = str(error)
        self._fleet.refused.note(keys.message(message_id), "message", message.model_dump_json(), why)
        self._inboxes.audit.note(AuditKind.FORGED, message, why)
        if entry and (message.id, message.target) == (message_id, receiver):
            self._inboxes.settle(message, MessageState.DEAD, entry=entry, note=f"refused: {why}")
        elif entry:  # a copy of another message, which stays what it is
            self._inboxes.drop(entry)
        return why

    def read(self) -> list[MessageRecord]:
        """The messages that wait for the sender, marked as read; for senders that have no pane."""
        records = self.inbox()
        entries = {entry.message_id: entry for entry in self._inboxes.waiting(self.sender)}
        for record in records:
            entry = entries.get(record.message.id)
            self._inboxes.settle(record.message, MessageState.READ, entry=entry, delivered_ago=0)
        return records

    def record(self, message_id: str) -> MessageRecord:
        """The record of one message."""
        self._flush_outbox()
        return self._inboxes.get(message_id)

    def await_delivery(self, message_id: str, seconds: float) -> MessageRecord | None:
        """The record once the receiver has the message, or as it is after so many seconds; None if it is not known yet.

        :class:`NotDelivered` if it was given up.
        """
        self._flush_outbox()
        latest = None
        for latest in self._inboxes.changes(message_id, time.monotonic() + seconds):
            if latest.state.arrived:
                break
            if latest.state.settled:
                raise NotDelivered(f"message {message_id} is {latest.state}: {latest.note}")
        return latest

    def history(self, party: str | None = None, limit: int = 50) -> list[MessageRecord]:
        """The latest messages of all, or from and to one party, oldest first."""
        self._flush_outbox()
        return self._inboxes.latest(party, limit)

    def refused(self, limit: int = 50) -> list[AuditEntry]:
        """The latest messages that were refused or went past the broker, oldest first."""
        self._flush_outbox()
        return self._inboxes.audit.latest(limit)

    def replay(self, message_id: str) -> MessageState:
        """Deliver a message after all that was given up or has expired."""
        self._flush_outbox()
        return self._inboxes.replay(message_id)

    def listen(self, role: str, since: int | None, seconds: float) -> tuple[list[Message], int]:
        """The messages to agents of a role after the moment ``since``, and the moment after which to ask next.

        Without a moment, those that are sent from now on. It waits so many seconds for the first of them.
        """
        self._flush_outbox()
        return self._inboxes.listen(role, since, time.monotonic() + seconds)

    @property
    def _fleet(self) -> Fleet:
        return fleet()

    @property
    def _inboxes(self) -> Inboxes:
        return self._fleet.inboxes

    @cached_property
    def _outbox(self) -> Outbox:
        return outbox_of(self._fleet)

    def _send(self, message: Message, role: str | None) -> Sent:
        try:
            return self._send_or_spool(message, role)
        except tuple(_AUDITED) as error:
            # While the broker is away, the refusal is not audited.
            with contextlib.suppress(BrokerUnreachable, CircuitBreakerError), _BREAKER.calling():
                self._inboxes.audit.note(_AUDITED[type(error)], message, str(error))
            raise

    def _send_or_spool(self, message: Message, role: str | None) -> Sent:
        policy().check(message)
        message = signed(message)
        try:
            with _BREAKER.calling():
                target, note, message = self._addressed(message, role)
        except (BrokerUnreachable, CircuitBreakerError) as error:
            return self._without_broker(message, error)
        if not self._fleet.settings.ledger:
            return self._accepted(message, target, note)
        file = self._outbox.keep(message)
        try:
            with _BREAKER.calling():
                if not self._outbox.is_next(file, message.sender):
                    self._outbox.flush(self._post)
                sent = self._accepted(message, target, note)
        except (BrokerUnreachable, CircuitBreakerError) as error:
            self._outbox.drop(file)
            return self._without_broker(message, error)
        except BaseException:
            self._outbox.drop(file)
            raise
        self._outbox.accepted(file)
        return sent

    def _accepted(self, message: Message, target: AgentInfo | None, note: str) -> Sent:
        state = self._inboxes.send(message, target.role if target else None)
        return Sent(id=message.id, target=message.target, state=state, transport="broker", note=note)

    def _addressed(self, message: Message, role: str | None) -> tuple[AgentInfo | None, str, Message]:
        """The receiver, a note for the sender, and the message, which the policy may have redirected."""
        known = {info.agent_id: info for info in self._fleet.registry.get_agents([message.target, message.sender])}
        target, sender = known.get(message.target), known.get(message.sender)
        self._require_known(message.target, target, role)
        exchanges = self._inboxes.exchanges(message.correlation_id)
        why = None
        if message.kind not in (MessageKind.REPLY, MessageKind.ACK):
            why = policy().detour(message, sender, target, exchanges)
        if why and (manager := manager_of(self._fleet.registry.agents(), policy().hub.manager)):
            note = f"goes to {manager.agent_id}: {why}"
            redirected = message.model_copy(update={"target": manager.agent_id, "via": message.target})
            return manager, note, signed(redirected)
        return target, _away(target), message

    def _require_known(self, name: str, target: AgentInfo | None, role: str | None) -> None:
        if target is None:
            if ended := self._fleet.registry.report_of(name):
                raise UnknownRecipient(
                    f"{ended.words} at {local_time(ended.at)}, by order of {ended.by}; "
                    "'torch-tasks agents' lists those that are there"
                )
            if name == OPERATOR or self._inboxes.is_known(name):
                return
            raise unknown_recipient(name, [info.agent_id for info in self._fleet.registry.agents()])
        if role and role_named(role) not in (target.role, "specialist"):
            raise UnknownRecipient(f"agent {name} is a {target.role}, not a {role_named(role)}")

    def _post(self, message: Message) -> None:
        """Send a message from the disk. If its receiver is unknown it is dead, or :class:`BrokerForgot` is raised."""
        try:
            target, note, message = self._addressed(message, None)
        except UnknownRecipient as error:
            if not self._fleet.registry.has_heard_all():
                raise BrokerForgot(str(error)) from None
            self._inboxes.settle(message, MessageState.DEAD, note=str(error))
            return
        self._accepted(message, target, note)

    def _without_broker(self, message: Message, error: Exception) -> Sent:
        """Give the message to the worker of an agent on this machine; keep one for another machine on the disk."""
        settings = self._fleet.settings
        if not settings.ledger:
            if isinstance(error, BrokerUnreachable):
                raise error
            raise LedgerOff("the broker is away, and with TORCH_LEDGER=false no message waits on the disk; unset it")
        folder = settings.state.agent(message.target)
        if is_hosted(folder):
            put_mail(folder, message.id, message.model_dump_json())
            state, transport = MessageState.ACCEPTED, "fallback"
            note = "the broker is away: given to the agent's worker on this machine"
        else:
            self._outbox.keep(message)
            state, transport = MessageState.SPOOLED, "spool"
            note = "the broker is away: it waits on this machine's disk and is sent when the broker is back"
        return Sent(id=message.id, target=message.target, state=state, transport=transport, note=note)

    def _limit_broadcasts(self) -> None:
        limit, key = self._fleet.settings.broadcasts_per_minute, keys.broadcasts(self.sender)
        with self._fleet.client.pipeline() as pipe:
            pipe.incr(key)
            pipe.expire(key, 60, nx=True)
            count = int(pipe.execute()[0])
        if count > limit:
            raise MessageRefused(
                f"{self.sender} has sent {limit} broadcasts within a minute; wait, or raise TORCH_BROADCASTS_PER_MINUTE"
            )

    def _flush_outbox(self) -> None:
        """Send the messages on this machine's disk before the broker is asked for anything."""
        flush_outbox(self._fleet)
        _BREAKER.close()


def unknown_recipient(name: str, agents: Iterable[str]) -> UnknownRecipient:
    """The error for a name that no agent has; it suggests similar ones."""
    hint = did_you_mean(name, agents, "'torch-tasks agents' lists those that are")
    return UnknownRecipient(f"no agent {name!r} is registered; {hint}")


def flush_outbox(of: Fleet) -> None:
    """Send the messages that waited on this machine, and again those that the broker has forgotten."""
    if of.settings.ledger:
        outbox_of(of).flush_and_check(of.reconciler, of.inboxes, Messenger(OPERATOR)._post)


def outbox_of(of: Fleet) -> Outbox:
    """With what lay in those for the former addresses of a broker that has moved."""
    state, broker = of.settings.state, of.settings.broker()
    outbox = Outbox(state.outbox(broker.file_name))
    for place in former_places(state.broker_moved, broker):
        outbox.adopt(state.outbox(file_name_of(place)))
    return outbox


def _away(target: AgentInfo | None) -> str:
    if target is None or (target.online and target.state is not AgentState.EXITED):
        return ""
    since = f", last seen at {local_time(target.last_heartbeat)}" if target.last_heartbeat else ""
    return f"{target.agent_id} is offline{since}: the message is kept until it returns"


def is_working_in(info: AgentInfo, project: str) -> bool:
    """Whether the agent works in this folder, or in one of this name."""
    folder = Path(info.workdir)
    wanted = Path(project).expanduser()
    return wanted in (folder, *folder.parents) if wanted.is_absolute() else project in folder.parts

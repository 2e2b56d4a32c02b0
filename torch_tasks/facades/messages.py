"""``NovaOrchestrator``: messages from Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch_tasks.caller import caller
from torch_tasks.errors import NoReply, NotDelivered
from torch_tasks.facades.polling import turns
from torch_tasks.link import Link
from torch_tasks.link import link as own_link
from torch_tasks.model.durations import describe_duration
from torch_tasks.model.message import Message, MessageKind, MessageRecord, MessageState, Sent, Urgency, When
from torch_tasks.operations import messages as operations
from torch_tasks.store.message_audit import AuditEntry
from torch_tasks.system.surrounding_span import surrounding_span


class NovaOrchestrator:
    """Sends and reads messages as ``sender``: by default this pane's agent, else the person."""

    def __init__(self, sender: str | None = None, *, link: Link | None = None) -> None:
        self._sender = sender
        self._link = link or own_link()

    @property
    def sender(self) -> str:
        return self._sender or caller().name

    def send_message(
        self,
        agent_id: str,
        text: str,
        message: str | None = None,
        *,
        when: When | str = When.IDLE,
        priority: Urgency | str = Urgency.NORMAL,
        kind: MessageKind | str = MessageKind.TEXT,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expires: float | None = None,
        id: str | None = None,  # noqa: A002 - the message's own word
    ) -> Sent:
        """Send a text to an agent and return at once; :meth:`message` shows its state later.

        ``send_message(role, agent_id, text)`` also requires that role of the agent. Sending the same ``id`` twice sends
        one message. While the broker is away, an agent of this machine gets the message from its worker, and one for
        another machine waits on the disk. Raises :class:`UnknownRecipient`, :class:`InvalidMessage`,
        :class:`MessageRefused` or :class:`InboxFull`; then nothing was sent.
        """
        role = None
        if message is not None:
            role, agent_id, text = agent_id, text, message
        how = {"correlation_id": correlation_id, "reply_to": reply_to, "expires": expires, "id": id, "role": role}
        request = operations.Send.build(
            **self._letter(text, {"to": agent_id, "when": when, "priority": priority, "kind": kind, **how})
        )
        return self._link.perform(operations.send, request)

    def ask(self, agent_id: str, text: str, timeout: float | None = None, **how: Any) -> MessageRecord:
        """Send a question and return the reply; :class:`NoReply` after ``timeout`` seconds, but it may still come."""
        waits = turns(timeout)
        request = operations.Ask.build(**self._letter(text, {"to": agent_id, "seconds": next(waits), **how}))
        answer = self._link.perform(operations.ask, request)
        question, reply = answer.question.id, answer.reply
        for seconds in waits:
            if reply:
                break
            await_reply = operations.AwaitMessage(message_id=question, seconds=seconds)
            reply = self._link.perform(operations.await_reply, await_reply)
        if reply:
            return reply
        raise NoReply(
            f"{agent_id} has not replied to {question} within {describe_duration(timeout or 0)}; its reply will be in "
            f"your inbox ('torch-tasks inbox'), and 'torch-tasks messages {question}' shows the state of the question"
        )

    def reply(self, message_id: str | None, text: str, **how: Any) -> Sent:
        """Answer a message: its sender gets the text, and the message counts as read.

        Without an id it is the last message that this pane's agent got.
        """
        request = operations.SendReply.build(**self._letter(text, {"message_id": message_id, **how}))
        return self._link.perform(operations.reply, request)

    def broadcast(
        self, text: str, *, role: str | None = None, skills: Iterable[str] = (), project: str | None = None, **how: Any
    ) -> list[Sent]:
        """Send a text to every online agent that matches; :class:`MessageRefused` after too many broadcasts."""
        whom = {"role": role, "skills": tuple(skills), "project": project}
        return self._link.perform(operations.broadcast, operations.Broadcast.build(**self._letter(text, whom | how)))

    def inbox(self, party: str | None = None) -> list[MessageRecord]:
        """The messages that wait for this party, emergencies first."""
        return self._link.perform(operations.inbox, operations.OfParty.build(party=party or self._sender))

    def read(self) -> list[MessageRecord]:
        """The messages that wait for the sender, marked as read; for senders that have no pane."""
        return self._link.perform(operations.read, operations.OfParty.build(party=self._sender))

    def message(self, message_id: str) -> MessageRecord:
        """The record of one message."""
        return self._link.perform(operations.get, operations.OfMessage.build(message_id=message_id))

    def await_delivery(self, message_id: str, timeout: float | None = None) -> MessageRecord:
        """Wait until the receiver has a message; :class:`NotDelivered` if it was given up or ``timeout`` is over."""
        record = None
        for seconds in turns(timeout):
            asked = operations.AwaitMessage.build(message_id=message_id, seconds=seconds)
            record = self._link.perform(operations.await_delivery, asked)
            if record and record.state.arrived:
                return record
        state = f"{record.state} in the inbox of {record.message.target}" if record else "not known yet"
        raise NotDelivered(
            f"message {message_id} is {state} after {describe_duration(timeout or 0)}; it stays there and is "
            "delivered later"
        )

    def history(self, party: str | None = None, limit: int = 50) -> list[MessageRecord]:
        """The latest messages of all, or from and to one party, oldest first."""
        return self._link.perform(operations.history, operations.GetHistory.build(party=party, limit=limit))

    def refused(self, limit: int = 50) -> list[AuditEntry]:
        """The latest messages that were refused or went past the broker, oldest first."""
        return self._link.perform(operations.refused, operations.GetRefused.build(limit=limit))

    def replay(self, message_id: str) -> MessageState:
        """Deliver a message after all that was given up or has expired."""
        return self._link.perform(operations.replay, operations.OfMessage.build(message_id=message_id))

    def subscribe(self, role: str) -> Iterator[Message]:
        """Every message to agents of this role from now on."""
        since = None
        while True:
            heard = self._link.perform(operations.listen, operations.Listen.build(role=role, since=since))
            yield from heard.messages
            since = heard.until

    def _letter(self, text: str, how: dict[str, Any]) -> dict[str, Any]:
        """The fields of a letter in the sender's name: those that say something."""
        fields = {"text": text, "sender": self._sender, "traceparent": surrounding_span(), **how}
        return {name: value for name, value in fields.items() if value is not None}

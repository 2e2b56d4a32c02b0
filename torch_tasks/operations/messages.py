"""The operations on messages."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationError

from torch_tasks.caller import CallerKind, caller
from torch_tasks.errors import InvalidMessage, MessageNotFound, NotInPane
from torch_tasks.model.address import Address, far_agent
from torch_tasks.model.fields import AgentId, Model, Role, Seconds, Skill, TaskId, Text, not_blank, readable
from torch_tasks.model.message import Message, MessageKind, MessageRecord, MessageState, Sent, Urgency, When
from torch_tasks.model.traceparent import PlaceInTrace
from torch_tasks.operations import crossing
from torch_tasks.operations.operation import WAIT_SECONDS, Access, Request, WaitSeconds, operation
from torch_tasks.security.rights import EVERYBODY, Right, Subject
from torch_tasks.state_folder import LAST_MESSAGE
from torch_tasks.store.message_audit import AuditEntry

if TYPE_CHECKING:
    from torch_tasks.communication.messenger import Messenger

_Words = Annotated[Text, not_blank("say something")]


class MailRequest(Request):
    """A request about messages."""

    refusal: ClassVar[str] = "this request about messages cannot be accepted"

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A request of these fields, or :class:`InvalidMessage` that says what is wrong with them."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidMessage(f"{cls.refusal}: {readable(error)}") from None


class Letter(MailRequest):
    """A text, and how it is sent."""

    refusal = "this message cannot be sent"

    text: _Words = Field(description="What is said.")
    when: When = Field(
        When.IDLE, description="When the receiver's program gets it: if it is idle, also while it works, or at once."
    )
    priority: Urgency = Field(Urgency.NORMAL, description="An emergency overtakes others, past the policy.")
    kind: MessageKind = Field(MessageKind.TEXT, description="What the message is.")
    correlation_id: TaskId | None = Field(None, description="The matter; the policy counts the exchanges on each.")
    reply_to: TaskId | None = Field(None, description="The message that this one answers or acknowledges.")
    expires: Seconds | None = Field(None, description="Drop it if it is not delivered in so many seconds.")
    id: TaskId = Field(
        default_factory=lambda: uuid.uuid4().hex, description="Sending the same id twice sends one message."
    )
    sender: AgentId | None = Field(None, description="In whose name (default: the caller's).")
    traceparent: PlaceInTrace = Field(
        None, description="The caller's span, as the W3C writes it: the message is drawn under it."
    )

    def how(self) -> dict[str, Any]:
        """The fields of the message itself; one without a span is sent under what its agent works on."""
        names = {"when", "priority", "kind", "correlation_id", "reply_to", "expires", "id"}
        named = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {**named, "traceparent": self.traceparent or caller().span}


class Send(Letter):
    """A text for one agent."""

    to: Address = Field(description="The receiver: an agent, or AGENT@FLEET in another fleet of the settings.")
    role: str | None = Field(None, description="Refuse it unless the receiver has this role.")


class Ask(Send):
    """A question to one agent."""

    to: AgentId = Field(description="The receiver.")
    kind: MessageKind = Field(MessageKind.QUESTION, description="What the message is.")
    seconds: WaitSeconds = WAIT_SECONDS


class AskedQuestion(Model):
    """A question that was sent, and its reply if there is one yet."""

    question: Sent
    reply: MessageRecord | None = None


class SendReply(Letter):
    """A text that answers a message."""

    message_id: TaskId | None = Field(
        None, description="The message to answer (default: the last one that this agent got)."
    )
    kind: MessageKind = Field(MessageKind.REPLY, description="What the message is.")


class Broadcast(Letter):
    """A text for many agents."""

    role: Role | None = Field(None, description="Only to agents of this role.")
    skills: tuple[Skill, ...] = Field((), description="Only to agents with all of these skills.")
    project: Text | None = Field(None, description="Only to agents that work in this folder, or in one of this name.")


class OfMessage(MailRequest):
    """A request about one message."""

    message_id: TaskId = Field(description="The message's id.")


class AwaitMessage(OfMessage):
    seconds: WaitSeconds = WAIT_SECONDS


class OfParty(MailRequest):
    """A request about the messages of one party."""

    party: AgentId | None = Field(None, description="Whose (default: the caller's).")


class GetHistory(MailRequest):
    party: AgentId | None = Field(None, description="Only from and to this party (default: all; an agent's own).")
    limit: int = Field(50, ge=1, description="How many.")


class GetRefused(MailRequest):
    limit: int = Field(50, ge=1, description="How many.")


class Listen(MailRequest):
    role: str = Field(description="The role of the receivers.")
    since: int | None = Field(None, description="The moment that the request before returned (default: now).")
    seconds: WaitSeconds = WAIT_SECONDS


class Heard(Model):
    """What was said to agents of a role."""

    messages: list[Message]
    until: int
    """The moment to name as ``since`` next."""


def _as_sender(asked: Letter) -> Subject:
    return Subject(party=asked.sender)


def _of_party(asked: OfParty) -> Subject:
    return Subject(party=asked.party)


def _messenger(party: str | None = None) -> Messenger:
    from torch_tasks.communication.messenger import Messenger  # reading whose a message is does without

    return Messenger(party)


def of_message(asked: OfMessage) -> Subject:
    """A message is its sender's and its receiver's own."""
    who = caller()
    if who.kind is CallerKind.PERSON:
        return Subject(party=EVERYBODY)
    try:
        message = _messenger().record(asked.message_id).message
    except MessageNotFound:
        return Subject()
    return subject_of(message)


def subject_of(message: Message) -> Subject:
    """Whose a message is, for the caller."""
    is_own = caller().name in (message.sender, message.target, message.via)
    return Subject() if is_own else Subject(party=message.target)


@operation("message.send", Right.SEND, access=Access.WRITE, about=_as_sender, needs_broker=False)
def send(asked: Send) -> Sent:
    """Send a text to an agent; returns at once, with what the sender should know."""
    if far := far_agent(asked.to):
        fields = asked.model_dump(mode="json", exclude={"to", "sender"}, exclude_none=True)
        note = crossing.accept(send.name, asked.id, {**fields, "to": far.agent_id}, far)
        return Sent(id=asked.id, target=asked.to, state=MessageState.SPOOLED, transport="spool", note=note)
    return _messenger(asked.sender).send(asked.to, asked.text, role=asked.role, **asked.how())


@operation("message.ask", Right.SEND, access=Access.WRITE, about=_as_sender, needs_broker=False, verbatim=True)
def ask(asked: Ask) -> AskedQuestion:
    """Ask an agent, and wait a while for its reply; without one, go on with message.await_reply."""
    messenger = _messenger(asked.sender)
    sent = messenger.send(asked.to, asked.text, role=asked.role, **asked.how())
    return AskedQuestion(question=sent, reply=messenger.await_reply(sent.id, asked.seconds))


@operation(
    "message.await_reply",
    Right.READ,
    access=Access.WRITE,
    about=of_message,
    idempotent=True,
    needs_broker=False,
    verbatim=True,
)
def await_reply(asked: AwaitMessage) -> MessageRecord | None:
    """Wait for the reply to a question, which then counts as read; nothing if there is none yet."""
    return _messenger().await_reply(asked.message_id, asked.seconds)


@operation("message.reply", Right.SEND, access=Access.WRITE, about=_as_sender, needs_broker=False)
def reply(asked: SendReply) -> Sent:
    """Answer a message: its sender gets the text, and the message counts as read."""
    return _messenger(asked.sender).reply(asked.message_id or _last_message(), asked.text, **asked.how())


def _last_message() -> str:
    own = caller()
    if own.folder is None:
        raise NotInPane("this is not an agent's pane: name the message to answer with --to")
    try:
        return (own.folder / LAST_MESSAGE).read_text().strip()
    except FileNotFoundError:
        raise NotInPane(
            f"agent {own.agent} has received no message yet; name the message to answer with --to"
        ) from None


@operation("message.broadcast", Right.SEND, access=Access.WRITE, about=_as_sender, needs_broker=False)
def broadcast(asked: Broadcast) -> list[Sent]:
    """Send a text to every agent that is online and matches."""
    messenger = _messenger(asked.sender)
    return messenger.broadcast(asked.text, role=asked.role, skills=asked.skills, project=asked.project, **asked.how())


@operation("message.inbox", Right.READ, about=_of_party, needs_broker=False, verbatim=True)
def inbox(asked: OfParty) -> list[MessageRecord]:
    """The messages that wait for a party, emergencies first; they stay unread."""
    return _messenger().inbox(asked.party)


@operation("message.read", Right.READ, access=Access.WRITE, about=_of_party, needs_broker=False, verbatim=True)
def read(asked: OfParty) -> list[MessageRecord]:
    """The messages that wait for a party without a pane, marked as read."""
    return _messenger(asked.party).read()


@operation("message.get", Right.READ, about=of_message, needs_broker=False)
def get(asked: OfMessage) -> MessageRecord:
    """One message: its text, how far it is, since when, and why."""
    return _messenger().record(asked.message_id)


@operation("message.await_delivery", Right.READ, about=of_message, needs_broker=False)
def await_delivery(asked: AwaitMessage) -> MessageRecord | None:
    """Wait until the receiver has a message; returns how far it is, or nothing if the broker does not know it yet."""
    return _messenger().await_delivery(asked.message_id, asked.seconds)


def _of_history(asked: GetHistory) -> Subject:
    return Subject(party=asked.party or (None if caller().agent else EVERYBODY))


@operation("message.history", Right.READ, about=_of_history, needs_broker=False)
def history(asked: GetHistory) -> list[MessageRecord]:
    """The latest messages, oldest first: from and to one party, or all."""
    return _messenger().history(asked.party or caller().agent, asked.limit)


@operation("message.refused", Right.READ, about=lambda _: Subject(party=EVERYBODY), needs_broker=False)
def refused(asked: GetRefused) -> list[AuditEntry]:
    """The latest messages that were refused or went past the broker, oldest first."""
    return _messenger().refused(asked.limit)


@operation("message.replay", Right.REVIVE, access=Access.WRITE, about=of_message, needs_broker=False)
def replay(asked: OfMessage) -> MessageState:
    """Deliver a message after all that was given up or has expired."""
    return _messenger().replay(asked.message_id)


@operation("message.listen", Right.READ, about=lambda _: Subject(party=EVERYBODY), needs_broker=False, verbatim=True)
def listen(asked: Listen) -> Heard:
    """Wait for messages to agents of a role; those that are sent between two requests are not missed."""
    messages, until = _messenger().listen(asked.role, asked.since, asked.seconds)
    return Heard(messages=messages, until=until)

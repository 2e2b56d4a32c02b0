"""A message as it travels, and the fleet's record of it."""

from __future__ import annotations

import json
import time
import uuid
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, ValidationError

from torch_tasks.errors import InvalidMessage
from torch_tasks.model.address import Address
from torch_tasks.model.fields import AgentId, Model, Seconds, TaskId, Text, not_blank, readable, title_of
from torch_tasks.model.traceparent import PlaceInTrace, TraceParent


class When(StrEnum):
    """When the receiver's program gets a message."""

    IDLE = "idle"
    """When it has nothing to do."""
    NOW = "now"
    """Also while it works, if it takes texts then."""
    INTERRUPT = "interrupt"
    """At once: its work is interrupted."""


class Urgency(StrEnum):
    """Whether a message overtakes others."""

    EMERGENCY = "emergency"
    NORMAL = "normal"


class MessageKind(StrEnum):
    """What a message is about; the policy says what each kind must hold."""

    TEXT = "text"
    STATUS = "status"
    TASK = "task"
    ACK = "ack"
    QUESTION = "question"
    REPLY = "reply"
    CHECKIN = "checkin"
    ESCALATION = "escalation"


class MessageState(StrEnum):
    SPOOLED = "spooled"
    """It waits on its sender's disk for the broker to return."""
    ACCEPTED = "accepted"
    """It is in the receiver's inbox."""
    STAGED = "staged"
    """The receiver's worker is putting it into the pane."""
    DELIVERED = "delivered"
    """The receiver's program has taken it."""
    ACKNOWLEDGED = "acknowledged"
    """The broker knows that it was delivered."""
    READ = "read"
    """The receiver has read it."""
    EXPIRED = "expired"
    """Its time was over before it could be delivered."""
    DEAD = "dead"
    """It was given up; only a person can replay it."""

    @property
    def arrived(self) -> bool:
        """Whether the receiver has it."""
        return self in ARRIVED

    @property
    def settled(self) -> bool:
        """Whether no process has to keep it any more in case the broker forgets it."""
        return self in SETTLED

    @property
    def sources(self) -> frozenset[MessageState]:
        """The states from which this one may follow."""
        return frozenset(state for state, successors in TRANSITIONS.items() if self in successors)


ARRIVED = frozenset({MessageState.DELIVERED, MessageState.ACKNOWLEDGED, MessageState.READ})
SETTLED = frozenset({MessageState.ACKNOWLEDGED, MessageState.READ, MessageState.EXPIRED, MessageState.DEAD})
TRANSITIONS: dict[MessageState, frozenset[MessageState]] = {
    MessageState.SPOOLED: frozenset({MessageState.ACCEPTED, MessageState.DEAD}),
    MessageState.ACCEPTED: SETTLED | {MessageState.STAGED},
    # If a worker died while it put the message into the pane, the next one enters the same state again.
    MessageState.STAGED: SETTLED | {MessageState.STAGED},
    MessageState.DELIVERED: frozenset({MessageState.ACKNOWLEDGED, MessageState.READ}),
    MessageState.ACKNOWLEDGED: frozenset({MessageState.READ}),
    MessageState.READ: frozenset(),
    # A person replays it, or the receiver's worker reports that it has arrived.
    MessageState.EXPIRED: (SETTLED | {MessageState.ACCEPTED}) - {MessageState.EXPIRED},
    MessageState.DEAD: SETTLED | {MessageState.ACCEPTED},
}
"""Which states may follow each other; the scripts on the broker enforce it."""

Transport = Literal["broker", "fallback", "spool"]


class Message(Model):
    """Text from one party to another; other services read its first five fields from the channels."""

    timestamp: float = Field(default_factory=time.time)
    sender: AgentId
    target: AgentId
    message: Annotated[Text, not_blank("say something")]
    correlation_id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex)
    id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex)
    kind: MessageKind = MessageKind.TEXT
    reply_to: TaskId | None = None
    incarnation: int | None = None
    """The incarnation of the sender, if an agent sends it."""
    when: When = When.IDLE
    priority: Urgency = Urgency.NORMAL
    expires: Seconds | None = None
    """How long after being accepted it may still be delivered."""
    via: str = ""
    """Its first receiver, if the policy sent it another way."""
    traceparent: PlaceInTrace = None
    """Under which span it was sent, if it was within a trace."""
    signature: str | None = None
    """Of who sent it, over all the rest; see :mod:`torch_tasks.communication.signed_messages`."""

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A message of these fields, or :class:`InvalidMessage` that says what is wrong with them."""
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            raise InvalidMessage(f"this message cannot be sent: {readable(error)}") from None

    def within(self, limit: int) -> Self:
        """This message, or :class:`InvalidMessage` if its text has more bytes than this."""
        size = len(self.message.encode())
        if size > limit:
            raise InvalidMessage(
                f"the message has {size:,} bytes, more than {limit:,} (TORCH_MESSAGE_LIMIT_BYTES); "
                "put the text into a file and send its name"
            )
        return self

    @property
    def title(self) -> str:
        return title_of(self.message)

    @property
    def span(self) -> str | None:
        """Its own span, as a ``traceparent``, for what it leads to; None outside of any trace."""
        place = TraceParent.read(self.traceparent)
        return str(place.under_message(self.id)) if place else None

    def signed_text(self) -> str:
        """Everything that it says, in one form."""
        left_out = {"signature"} if self.traceparent else {"signature", "traceparent"}
        return json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)


class MessageRecord(Model):
    message: Message
    state: MessageState
    transport: Transport = "broker"
    note: str = ""
    reply: TaskId | None = None
    tries: int = 0
    accepted_at: AwareDatetime | None = None
    staged_at: AwareDatetime | None = None
    delivered_at: AwareDatetime | None = None
    acknowledged_at: AwareDatetime | None = None
    read_at: AwareDatetime | None = None
    settled_at: AwareDatetime | None = None
    """When it was known what became of it: it was delivered, expired or was given up."""
    expires_at: AwareDatetime | None = None


class Sent(Model):
    id: TaskId
    target: Address
    state: MessageState
    transport: Transport
    note: str = ""
    """What its sender should know, as that the receiver is away or the policy chose another receiver."""


def id_for(message_id: str, whom: str = "") -> str:
    """The id of what one message becomes for one party: always the same, so that it is sent once."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{message_id} {whom}").hex

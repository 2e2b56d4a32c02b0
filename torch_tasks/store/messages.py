"""The inboxes: every statement on the broker that reads or writes a message.

An inbox is two streams of message ids, one for emergencies; each message has a record of its own. An entry leaves its
stream when its receiver has the message, or when the message will not be delivered any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import redis

from torch_tasks import keys
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.broker.scripts import Scripts
from torch_tasks.caller import OPERATOR
from torch_tasks.errors import BrokerForgot, InboxFull, MessageNotFound, SenderLimit, StaleWriter, Unreadable
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.message import TRANSITIONS, Message, MessageKind, MessageRecord, MessageState, Transport, Urgency
from torch_tasks.model.reader import read_object, unreadable_if_wrong
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.settings import Settings
from torch_tasks.store.ids import ids_beginning, near_ids
from torch_tasks.store.message_audit import Audit, AuditKind

CHANNELS = {
    "orchestrator": f"{keys.PREFIX}orchestrator",
    "project-manager": f"{keys.PREFIX}pms",
    "developer": f"{keys.PREFIX}devs",
    "specialist": f"{keys.PREFIX}specialists",
}
_SAME = {"pm": "project-manager", "project_manager": "project-manager", "dev": "developer"}


def role_named(word: str) -> str:
    """A role that people or older programs may write in the plural, in short or with an underscore."""
    word = word.strip().lower()
    for name in (word, word.removesuffix("s")):
        if name in _SAME or name in CHANNELS:
            return _SAME.get(name, name)
    return word


def channel_of(role: str | None) -> str:
    """The channel of a role; that of the specialists for any other role."""
    return CHANNELS.get(role_named(role or ""), CHANNELS["specialist"])


GROUP = "receiver"
"""The one consumer group of each inbox, and its one consumer."""
SCRIPTS = Scripts(__file__, TRANSITIONS=TRANSITIONS, GROUP=GROUP)
_UNKNOWN_SECONDS = 10.0
_AT_ONCE = 32
_ID_LENGTH = 128
_ANSWERS = (MessageKind.REPLY, MessageKind.ACK)
_MOMENTS = ("accepted_at", "staged_at", "delivered_at", "acknowledged_at", "read_at", "settled_at", "expires_at")


_TOO_MANY: dict[str, tuple[type[InboxFull], str]] = {
    "full": (
        InboxFull,
        "the inbox of {message.target} holds {count} messages already (TORCH_INBOX_LIMIT, "
        "TORCH_INBOX_RESERVE_PERCENT): it is away, or slower than its senders; send it again when there is room",
    ),
    "unread": (
        SenderLimit,
        "{message.target} has {count} messages of {message.sender} that it has not read (TORCH_UNREAD_PER_SENDER); "
        "wait until it has, and say in one message what can be said in one",
    ),
    "fast": (
        SenderLimit,
        "{message.sender} has sent {count} messages within a minute (TORCH_MESSAGES_PER_MINUTE); "
        "wait a minute, and say in one message what can be said in one",
    ),
}


class InboxEntry(NamedTuple):
    inbox: str
    number: str
    message_id: str


class Inboxes:
    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self.audit = Audit(client)
        self._limits = settings
        self.keep_seconds = int(settings.result_days * 86400)
        self._refused = RefusedLetters(client)

    # ── the sender's side ────────────────────────────────────────────────────────────────────────────────────────

    def send(self, message: Message, role: str | None) -> MessageState:
        """Put a message into its receiver's inbox, once, and publish it on the channel of the receiver's ``role``.

        Returns its state; :class:`InboxFull` if there is no room.
        """
        urgent, normal = (keys.inbox(message.target, urgency) for urgency in Urgency)
        own, other = (urgent, normal) if message.priority is Urgency.EMERGENCY else (normal, urgent)
        outcome, detail = SCRIPTS["send"](
            self._client,
            record=keys.message(message.id),
            notices=keys.NOTICES,
            inbox=own,
            other_inbox=other,
            indexes=(*self._indexes(message), keys.published(channel_of(role))),
            together=_together(message),
            exchanges=keys.exchanges(message.correlation_id),
            answered=keys.message(message.reply_to or message.id),
            channel=channel_of(role),
            last_status=keys.LAST_STATUS,
            sent_lately=keys.sent_lately(message.sender, message.priority),
            id=message.id,
            message=message.model_dump_json(),
            sender=message.sender,
            **self._limits_of(message),
            keep_seconds=self.keep_seconds,
            expires_ms=int((message.expires or 0) * 1000),
            answer=message.kind if message.reply_to and message.kind in _ANSWERS else "",
            status_of=message.sender if message.kind is MessageKind.STATUS else "",
        )
        if outcome in _TOO_MANY:
            error, words = _TOO_MANY[outcome]
            raise error(words.format(message=message, count=detail) + ". This message was not accepted")
        return MessageState(detail) if outcome == "known" else MessageState.ACCEPTED

    def _limits_of(self, message: Message) -> dict[str, int]:
        """What ``send`` holds a message to: people have no limits of their own; they and emergencies a reserve."""
        limit, emergency = self._limits.inbox_limit, message.priority is Urgency.EMERGENCY
        if message.sender == OPERATOR:
            return {"limit": limit, "unread_limit": 0, "minute_limit": 0}
        return {
            "limit": limit if emergency else limit - limit * self._limits.inbox_reserve_percent // 100,
            "unread_limit": self._limits.unread_per_sender // (10 if emergency else 1),
            "minute_limit": self._limits.messages_per_minute,
        }

    def exchanges(self, correlation_id: str) -> int:
        return int(self._client.get(keys.exchanges(correlation_id)) or 0)

    def replay(self, message_id: str) -> MessageState:
        """Put a message that was given up back into its inbox."""
        places = _places(self.get(message_id).message)
        return MessageState(SCRIPTS["replay"](self._client, **places, id=message_id))

    def withdraw(self, message_id: str, note: str) -> bool:
        """Take a message back; false if its receiver has begun to deliver it, or there is no such message."""
        record = self.records([message_id])[0]
        if record is None:
            return False
        places = _places(record.message)
        return bool(
            SCRIPTS["withdraw"](self._client, **places, id=message_id, note=note, keep_seconds=self.keep_seconds)
        )

    # ── the receiver's side ──────────────────────────────────────────────────────────────────────────────────────

    def open(self, party: str) -> None:
        """Make the inbox of this receiver, unless it exists."""
        for urgency in Urgency:
            try:
                self._client.xgroup_create(keys.inbox(party, urgency), GROUP, "0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def fetch(
        self, party: str, *, again: bool = False, emergencies_only: bool = False, wait_ms: int = 0
    ) -> list[InboxEntry]:
        """The next entries that were not fetched, or ``again`` all that were and are not settled."""
        chosen = (Urgency.EMERGENCY,) if emergencies_only else tuple(Urgency)
        streams: dict[Any, Any] = {keys.inbox(party, urgency): "0" if again else ">" for urgency in chosen}
        count = None if again else _AT_ONCE
        try:
            answer: Any = self._client.xreadgroup(GROUP, GROUP, streams, count=count, block=wait_ms or None)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            raise BrokerForgot(f"the broker has forgotten the inbox of {party}") from None
        return [entry for inbox, entries in (answer or []) for entry in self._entries(str(inbox), entries)]

    def waiting(self, party: str) -> list[InboxEntry]:
        """The entries of an inbox, emergencies first, fetched or not."""
        streams = [keys.inbox(party, urgency) for urgency in Urgency]
        with self._client.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.xrange(stream)
            answers = pipe.execute()
        return [entry for stream, found in zip(streams, answers, strict=True) for entry in self._entries(stream, found)]

    def _entries(self, inbox: str, found: Iterable[tuple[Any, dict[Any, Any]]]) -> Iterator[InboxEntry]:
        """The entries that were read from an inbox; one that names no message goes to the dead letters."""
        for number, fields in found:
            entry = InboxEntry(inbox, str(number), str((fields or {}).get("id", "")))
            if 0 < len(entry.message_id) <= _ID_LENGTH:
                yield entry
            elif fields:  # a deleted one that was not settled has none
                self._refused.note(inbox, "", json.dumps(fields), "it names no message")
                self.drop(entry)

    def stage(self, message_id: str, by: AgentInfo) -> str:
        """Note that the receiver's worker begins to deliver; returns the message's state: "staged" if it may."""
        places = {"record": keys.message(message_id), "notices": keys.NOTICES, "incarnations": keys.AGENT_INCARNATION}
        state = str(SCRIPTS["stage"](self._client, **places, agent=by.agent_id, incarnation=by.incarnation))
        if state == "stale":
            raise StaleWriter(f"agent {by.agent_id} has a later incarnation than {by.incarnation}")
        return state

    def settle(
        self,
        message: Message,
        state: MessageState,
        *,
        by: AgentInfo | None = None,
        entry: InboxEntry | None = None,
        note: str = "",
        transport: Transport = "broker",
        delivered_ago: float | None = None,
    ) -> None:
        """Note the outcome of a message and remove it from its inbox; :class:`StaleWriter` for a stale incarnation."""
        outcome = SCRIPTS["settle"](
            self._client,
            record=keys.message(message.id),
            notices=keys.NOTICES,
            inbox=entry.inbox if entry else keys.inbox(message.target, message.priority),
            incarnations=keys.AGENT_INCARNATION,
            indexes=self._indexes(message),
            together=_together(message),
            agent=message.target,
            incarnation=by.incarnation if by else None,
            number=entry.number if entry else None,
            state=state,
            note=note,
            keep_seconds=self.keep_seconds,
            id=message.id,
            message=message.model_dump_json(),
            transport=transport,
            delivered_ms=None if delivered_ago is None else int(delivered_ago * 1000),
        )
        if outcome == "stale":
            raise StaleWriter(f"agent {message.target} has a later incarnation; its note on {message.id} is refused")
        if transport == "fallback" and outcome == state:
            self.audit.note(AuditKind.FALLBACK, message, "the broker was away")

    def drop(self, entry: InboxEntry) -> None:
        """Remove an entry whose message has no record from its inbox."""
        self._client.xack(entry.inbox, GROUP, entry.number)
        self._client.xdel(entry.inbox, entry.number)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, message_id: str) -> MessageRecord:
        found = self.records([message_id])[0]
        if found is None:
            raise self._not_found(message_id)
        return found

    def ids_beginning(self, beginning: str) -> list[str]:
        """The ids with this beginning; only the id itself if it is complete."""
        return ids_beginning(self._client, keys.MESSAGES, beginning)

    def records(self, message_ids: Iterable[str]) -> list[MessageRecord | None]:
        """The records of these messages, in their order."""
        wanted = list(message_ids)
        if not wanted:
            return []
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            for message_id in wanted:
                pipe.hgetall(keys.message(message_id))
            (seconds, micros), *found = pipe.execute()
        moment = seconds + micros / 1e6
        return [self._readable(one, fields, moment) for one, fields in zip(wanted, found, strict=True)]

    def _readable(self, message_id: str, fields: Mapping[str, str], moment: float) -> MessageRecord | None:
        """The record of a message; None if there is none, or none that can be read: that is among the dead letters."""
        if not fields:
            return None
        try:
            with unreadable_if_wrong():
                return _record(message_id, fields, moment)
        except Unreadable as error:
            self._refused.note(keys.message(message_id), "", json.dumps(fields), str(error))
            return None

    def together(self, trace_id: str) -> list[str]:
        """The messages of a trace, in the order in which they were accepted."""
        return [str(one) for one in self._client.zrange(keys.message_trace(trace_id), 0, -1)]

    def _not_found(self, message_id: str) -> MessageNotFound:
        near = near_ids(self._client, keys.MESSAGES, message_id)
        return MessageNotFound(f"there is no message {message_id}: a wrong id, or it was sent too long ago{near}")

    def states(self, message_ids: Iterable[str]) -> list[MessageState | None]:
        with self._client.pipeline(transaction=False) as pipe:
            for message_id in message_ids:
                pipe.hget(keys.message(message_id), "state")
            return [MessageState(state) if state in set(MessageState) else None for state in pipe.execute()]

    def depths(self, parties: Iterable[str]) -> dict[str, int]:
        """How many messages wait for each of these parties, if any do; most first."""
        names = list(parties)
        with self._client.pipeline(transaction=False) as pipe:
            for party in names:
                for urgency in Urgency:
                    pipe.xlen(keys.inbox(party, urgency))
            lengths = pipe.execute()
        step = len(Urgency)
        depths = [(name, sum(lengths[step * place : step * (place + 1)])) for place, name in enumerate(names)]
        return dict(sorted((pair for pair in depths if pair[1]), key=lambda pair: -pair[1]))

    def count_dead(self, among: int) -> int:
        ids = [str(message_id) for message_id in self._client.zrevrange(keys.MESSAGES, 0, among - 1)]
        return self.states(ids).count(MessageState.DEAD)

    def last_statuses(self) -> list[MessageRecord]:
        """The last status report of each agent, as far as it is still known."""
        ids = [str(message_id) for message_id in self._client.hvals(keys.LAST_STATUS)]
        return [record for record in self.records(ids) if record]

    def latest(self, party: str | None = None, limit: int = 50) -> list[MessageRecord]:
        """The latest messages of all parties, or from and to one, oldest first."""
        index = keys.conversation(party) if party else keys.MESSAGES
        ids = [str(message_id) for message_id in self._client.zrevrange(index, 0, limit - 1)]
        return [record for record in reversed(self.records(ids)) if record]

    def is_known(self, party: str) -> bool:
        """Whether a party of this name ever sent or got a message."""
        return bool(self._client.exists(keys.conversation(party)))

    def changes(self, message_id: str, deadline: float | None) -> Iterator[MessageRecord]:
        """The record now and after each change, until the monotonic ``deadline``; read at least once a second.

        A message that the broker does not know yet is waited for a moment: its receiver may put it there.
        """
        unknown_since = time.monotonic()
        with self._client.pubsub() as notices:  # type: ignore[no-untyped-call]
            notices.subscribe(keys.message(message_id))
            while True:
                if record := self.records([message_id])[0]:
                    yield record
                elif time.monotonic() - unknown_since > _UNKNOWN_SECONDS:
                    raise self._not_found(message_id)
                left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
                if left <= 0:
                    return
                notices.get_message(timeout=left)

    def listen(self, role: str, since: int | None, deadline: float) -> tuple[list[Message], int]:
        """The messages to agents of a role that were accepted after this microsecond (default: from now on).

        Returns them as soon as there are any, at the latest at the monotonic ``deadline``, with the microsecond of the
        last one.
        """
        channel = channel_of(role)
        with self._client.pubsub(ignore_subscribe_messages=True) as notices:  # type: ignore[no-untyped-call]
            notices.subscribe(channel)
            if since is None:
                seconds, micros = self._client.time()
                since = seconds * 1_000_000 + micros
            while True:
                found: Any = self._client.zrange(
                    keys.published(channel), f"({since}", "+inf", byscore=True, offset=0, num=_AT_ONCE, withscores=True
                )
                if found:
                    records = self.records(str(message_id) for message_id, _ in found)
                    return [record.message for record in records if record], int(found[-1][1])
                left = min(1.0, deadline - time.monotonic())
                if left <= 0:
                    return [], since
                notices.get_message(timeout=left)

    def _indexes(self, message: Message) -> tuple[str, str, str]:
        return keys.MESSAGES, keys.conversation(message.sender), keys.conversation(message.target)


def _together(message: Message) -> tuple[str, ...]:
    """Where the messages of its trace are noted, if it has one."""
    place = TraceParent.read(message.traceparent)
    return (keys.message_trace(place.trace_id),) if place else ()


def _places(message: Message) -> dict[str, str]:
    return {
        "record": keys.message(message.id),
        "notices": keys.NOTICES,
        "inbox": keys.inbox(message.target, message.priority),
    }


def _record(message_id: str, fields: Mapping[str, str], moment: float) -> MessageRecord:
    values: dict[str, Any] = {name: value for name, value in fields.items() if value != ""}
    values["message"] = read_object(fields["message"])
    for name in _MOMENTS:
        if name in values:
            values[name] = datetime.fromtimestamp(float(values[name]) / 1000, UTC)
    record = MessageRecord.model_validate(values)
    if record.message.id != message_id:
        raise Unreadable("it is the record of another message")
    overdue = record.expires_at is not None and record.expires_at.timestamp() <= moment
    if overdue and record.state is MessageState.ACCEPTED:  # its receiver has not read it since
        return record.model_copy(update={"state": MessageState.EXPIRED})
    return record

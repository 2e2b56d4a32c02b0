"""kombu's Redis transport, with channels that take messages under a lease."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from contextlib import suppress
from queue import Empty
from typing import Any

import redis
from kombu.transport import redis as stock
from kombu.utils.encoding import bytes_to_str
from kombu.utils.objects import cached_property
from redis.exceptions import NoScriptError

from torch_tasks import keys
from torch_tasks.broker.following import FollowingConnection, followed
from torch_tasks.broker.reconciler import greeting
from torch_tasks.errors import BadSignature, SignatureRefused, Unreadable
from torch_tasks.model.reader import LIMIT_BYTES
from torch_tasks.transport.claiming import (
    CLAIM,
    TURNS_BEFORE_LOW,
    ClaimedMessage,
    ClaimRequest,
    WrongTypeLog,
    is_refused,
)
from torch_tasks.transport.deliveries import BELL_LENGTH, BELL_MS, SCRIPTS, SEPARATOR, SET_ASIDE_HEADER, queue_of
from torch_tasks.transport.envelope import BROADCAST_SECONDS, delivered, signature_of, written
from torch_tasks.transport.joining import Placing, joined_step
from torch_tasks.transport.leases import ANSWER_SECONDS, LeaseKeeper, LeaseTerms
from torch_tasks.transport.qos import QoS

log = logging.getLogger(__name__)

CLOSED_SECONDS = 0.2
"""How long a consumer waits before it asks again whether the gate is open."""
BINDING_SECONDS = 60
"""How often the worker refreshes the bindings of expiring queues, which last an hour at least."""


def noticed(channel: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """These parameters of connections that wait, with a class that tells kombu's loop when one of them ends."""
    if parameters["connection_class"] is not FollowingConnection:
        return parameters  # kombu has made such a class

    class Noticed(FollowingConnection):
        def disconnect(self, *args: Any, **options: Any) -> None:
            super().disconnect(*args, **options)  # type: ignore[no-untyped-call]
            if channel._registered:
                channel._on_connection_disconnect(self)

    return {**parameters, "connection_class": Noticed}


class PublishBatch(stock.PublishBatch):
    """Many messages at once; each wakes one consumer that waits for it."""

    def flush(self) -> None:
        """Send the buffered messages and ring the bells of their queues."""
        if self._buffered:
            sent = Counter(queue_of(args[1]) for args, _ in self.pipeline.command_stack if args[0] == "LPUSH")
            for queue, count in sent.items():
                bell = keys.bell(queue)
                self.pipeline.lpush(bell, *[""] * min(count, BELL_LENGTH))
                self.pipeline.ltrim(bell, 0, BELL_LENGTH - 1)
                self.pipeline.pexpire(bell, BELL_MS)
        super().flush()


class Channel(stock.Channel):
    """A channel that claims: it asks for a message, and when there is none, waits at the bells of its queues.

    It does so on kombu's own connection for consuming, so that the worker's loop is never blocked. What it takes
    belongs to the process's keeper.
    """

    QoS = QoS
    #: Options of the transport: see :class:`~torch_tasks.transport.leases.LeaseTerms`.
    lease_seconds = LeaseTerms.lease_seconds
    delivery_limit = LeaseTerms.delivery_limit
    recovery_seconds = LeaseTerms.recovery_seconds
    #: Another option: a longer message goes to the dead letters without being read.
    limit_bytes = LIMIT_BYTES
    from_transport_options = (*stock.Channel.from_transport_options, *LeaseTerms.__dataclass_fields__, "limit_bytes")

    _in_poll: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._publisher: Any = None
        self._unleased: set[str] = set()
        #: The claim that the broker has not answered yet; without one, kombu's "poll" is the wait at the bells.
        self._claim: ClaimRequest | None = None
        self._passed_by = 0
        self._refusals = WrongTypeLog()
        self._own_bell = keys.bell(f"channel:{uuid.uuid4().hex}")
        super().__init__(*args, **kwargs)
        if self.global_keyprefix or self.sep != SEPARATOR or not self.ack_emulation:
            raise ValueError("the leased transport has no global_keyprefix, no other sep, and no ack_emulation=False")
        # kombu has just pinged the broker on it. Most channels never consume; one that does connects again.
        self.async_pool.disconnect()

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────────

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        # With protocol 3, redis-py asks for maintenance notifications on every connection and is refused.
        parameters = {**super()._connparams(asynchronous=asynchronous), "protocol": 2}
        if not asynchronous:
            return followed(parameters)
        parameters = noticed(self, followed(parameters))
        return {**parameters, "redis_connect_func": greeting(self.pool.note_server)}

    def _get_pool(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._get_pool(asynchronous=True)
        if self.connection is None:
            raise redis.ConnectionError("this channel was closed when its connection was lost")
        return self.connection.client.pools.pool_for(self._connparams())

    def _disconnect_pools(self) -> None:
        self._pool: redis.ConnectionPool | None = None  # the others go on using it
        super()._disconnect_pools()

    def _on_connection_disconnect(self, connection: Any) -> None:
        super()._on_connection_disconnect(connection)
        if "keeper" in self.__dict__:
            self.keeper.sweep_by()  # notice a restart of the broker before other processes open its gate

    def _create_client(self, asynchronous: bool = False) -> Any:
        """One client for everything but consuming; kombu would make one for each command."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._publisher is None or self._publisher.connection_pool is not self.pool:
            self._publisher = super()._create_client()
        return self._publisher

    @cached_property
    def keeper(self) -> LeaseKeeper:
        """The keeper of the messages that this channel takes."""
        terms = LeaseTerms(self.lease_seconds, self.delivery_limit, self.recovery_seconds)
        keeper: LeaseKeeper = self.connection.client.leases.keeper_for(followed(super()._connparams()), terms)
        return keeper

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        """Add a message to the end of its queue and wake one consumer that waits for it; or set it aside."""
        headers = message.get("headers") or {}
        if SET_ASIDE_HEADER in headers:
            kept = {**message, "headers": {name: headers[name] for name in headers.keys() - {SET_ASIDE_HEADER}}}
            with self.conn_or_acquire() as client:
                client.hset(keys.SET_ASIDE, headers["id"], written(kept, queue))
            return
        target = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        text = written(message, queue)
        if (batch := kwargs.get("_publish_batch")) is not None:
            batch.add("lpush", target, text)
            for step in self.priority_steps if queue in self._expires else ():
                batch.add("pexpire", self._q_for_pri(queue, step), self._expires[queue])
            return
        put = {"list": target, "bell": keys.bell(queue), "message": text}
        if step := joined_step():
            step(Placing(**put))
            return
        with self.conn_or_acquire() as client:
            if queue not in self._expires:
                SCRIPTS["put"](client, **put)
                return
            with client.pipeline() as pipe:
                SCRIPTS["put"](pipe, **put)
                for step in self.priority_steps:
                    pipe.pexpire(self._q_for_pri(queue, step), self._expires[queue])
                pipe.execute()

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **kwargs: Any) -> None:
        """Send a message to all that listen now: a command to the workers, or an event."""
        text = written(message, _heard_on(exchange), lasts_seconds=BROADCAST_SECONDS)
        topics = self._get_publish_topics(exchange, routing_key)
        if (batch := kwargs.get("_publish_batch")) is not None:
            for topic in topics:
                batch.add("publish", topic, text)
            return
        with self.conn_or_acquire() as client:
            for topic in topics:
                client.publish(topic, text)

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        return PublishBatch(self, max_size)

    # ── consuming ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def claiming(self) -> bool:
        """Whether the broker has still to answer a claim."""
        return bool(self._in_poll) and self._claim is not None

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue from now on."""
        if no_ack:
            self._unleased.add(queue)
        else:
            self._unleased.discard(queue)
            _ = self.keeper  # made now: it must know the broker before it has something to keep
        consuming = super().basic_consume(queue, no_ack, *args, **kwargs)
        self._interrupt_wait()
        return consuming

    def _basic_cancel(self, consumer_tag: str) -> Any:
        cancelled = super()._basic_cancel(consumer_tag)
        if self.active_queues:
            self._interrupt_wait()
        else:
            self._stop_polling()
        return cancelled

    def _interrupt_wait(self) -> None:
        """The queues have changed: end the wait at the bells now, or let it run out if the broker is away."""
        if self._in_poll and not self.claiming:
            with suppress(*self.connection_errors), self.conn_or_acquire() as client, client.pipeline() as pipe:
                pipe.lpush(self._own_bell, "").pexpire(self._own_bell, BELL_MS).execute()

    def _stop_polling(self) -> None:
        """Take nothing any more: put back what a claim brings at this moment, end a wait, and leave the connection.

        An idle one that the broker ends would fail whoever consumes on this channel next.
        """
        connection: Any = self.client.connection if "client" in self.__dict__ else None
        if self.claiming:
            with suppress(Empty, *self.connection_errors):
                if connection.can_read(timeout=ANSWER_SECONDS) and (taken := self._read_claim()):
                    self._give_back(taken)
        if connection:
            connection.disconnect()
        self._in_poll = None

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for a message; kombu calls this when there is room for one and no request is open."""
        if not self._unleased and self.connection.client.leases.intake.is_on:
            self._wait(closed=True)
        elif queues := self._queue_cycle.consume(len(self.active_queues)):
            self._claim = ClaimRequest.of(
                queues,
                self.priority_steps,
                server=self.pool.server,
                lease_seconds=self.lease_seconds,
                limit_bytes=self.limit_bytes,
                unleased=self._unleased,
                lowest_first=self._passed_by >= TURNS_BEFORE_LOW,
            )
            self._send("EVALSHA", *CLAIM.words(**self._claim.values))

    def _wait(self, *, closed: bool) -> None:
        """Wait until a bell rings; while the gate is closed, only for a moment."""
        bells = [] if closed else [keys.bell(queue) for queue in self.active_queues]
        self._claim = None
        self._send("BRPOP", *bells, self._own_bell, CLOSED_SECONDS if closed else self.brpop_timeout or 0)

    def _send(self, *command: Any) -> None:
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command(*command)

    def _answer(self, command: str) -> Any:
        try:
            return self.client.parse_response(self.client.connection, command)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None

    def _brpop_read(self, **options: Any) -> bool:
        """Read the broker's answer: a message, or none, or the end of the wait."""
        if not self.claiming:
            try:
                self._answer("BRPOP")
            except redis.ResponseError as error:
                self._refusals.note(error, self.pool, [keys.bell(queue) for queue in self.active_queues])
            self._flush_brpop_reauth()
            raise Empty
        sent_at = self._brpop_sent_at
        taken = self._read_claim()
        if taken is None:
            raise Empty
        self._queue_cycle.rotate(taken.queue)
        self._passed_by = self._passed_by + 1 if taken.passed_by else 0
        if time.monotonic() - sent_at > self.lease_seconds / 2:  # another process may have it soon, or already
            self._give_back(taken)
            raise Empty
        return self._hand_over(taken)

    def _read_claim(self) -> ClaimedMessage | None:
        asked = self._claim
        assert asked is not None
        try:
            answer = self._answer("EVALSHA")
        except NoScriptError:
            _, *words = CLAIM.words(**asked.values)
            self._send("EVAL", CLAIM.script, *words)
            return None
        except redis.ResponseError as error:
            self._refusals.note(error, self.pool, CLAIM.keys_in(**asked.values))
            self._wait(closed=True)
            return None
        taken = asked.taken(answer)
        if taken is None:
            closed = is_refused(answer)
            if closed and "keeper" in self.__dict__:
                self.keeper.sweep_by()
            self._wait(closed=closed)
        elif taken.refused:
            return None  # and ask again
        elif taken.leased:
            self.keeper.hold(taken.tag, taken.message, self.qos.tags)
        return taken

    def _give_back(self, taken: ClaimedMessage) -> None:
        if taken.leased:
            self.keeper.requeue(taken.tag)

    def _hand_over(self, taken: ClaimedMessage) -> bool:
        """Give a message to its consumer; one that the consumer fails on counts as lost, or it would return forever."""
        if taken.queue not in self.connection._callbacks:  # cancelled meanwhile
            self._give_back(taken)
            raise Empty
        payload = self._readable(taken)
        try:
            self.connection._deliver(payload, taken.queue)
        except Exception as error:
            if taken.leased:
                # kombu lists KeyError with the errors of a lost connection.
                lost = isinstance(error, self.connection_errors) and not isinstance(error, KeyError)
                (self.keeper.requeue if lost else self.keeper.fail)(taken.tag)
            raise
        return True

    def _readable(self, taken: ClaimedMessage) -> dict[str, Any]:
        """The message as its consumer gets it; one that is not readable is buried."""
        try:
            return delivered(taken.message, taken.tag, limit=self.limit_bytes, queue=taken.queue)
        except (Unreadable, SignatureRefused) as error:
            if taken.leased:
                self.keeper.refuse(taken.tag, str(error))
            else:
                log.error("a message in %s is refused and dropped: %s", taken.queue, error)
            self._note_refused(taken.queue, error)
            raise Empty from None

    def _note_refused(self, queue: str, error: Unreadable | SignatureRefused) -> None:
        """Have it known that somebody wrote what nobody of the fleet signed."""
        if isinstance(error, SignatureRefused):
            self.connection.client.leases.listeners.refused(queue, str(error))

    def _receive_one(self, client: Any) -> bool | None:
        """As kombu does, but a control command or an event that is not readable is dropped before it is parsed."""
        try:
            response = client.parse_response()
        except self.connection_errors:
            self._in_listen = None
            raise
        if not isinstance(response, (list, tuple)):
            return None
        notice = self._handle_message(client, response)
        if not bytes_to_str(notice["type"]).endswith("message"):
            return None
        channel = bytes_to_str(notice["channel"]).partition(".")[2].partition("/")[0]
        if channel not in self._fanout_to_queue:
            return None
        text, is_command = notice["data"].decode(errors="replace"), channel.endswith(".pidbox")
        try:
            message = delivered(
                text, uuid.uuid4().hex, limit=self.limit_bytes, is_command=is_command, queue=_heard_on(channel)
            )
            if is_command and not self._is_new(channel, text):
                raise BadSignature("this process has heard it before: somebody sent it a second time")
        except (Unreadable, SignatureRefused) as error:
            log.error("a broadcast on %s is refused and dropped: %s", channel, error)
            self._note_refused(channel, error)
            return None  # the next one, which may have come with it, is read at once
        return bool(self._deliver_fanout_message(message, channel))

    def _is_new(self, exchange: str, text: str) -> bool:
        signature = signature_of(text)
        heard = self.connection.client.leases.heard
        return not signature or bool(heard.is_new(f"{self._fanout_to_queue[exchange]} {signature}"))

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message without waiting, if there is one."""
        asked = ClaimRequest.of(
            [queue],
            self.priority_steps,
            server=self.pool.server,
            lease_seconds=self.lease_seconds,
            limit_bytes=self.limit_bytes,
            unleased=[queue] if no_ack else [],
        )
        taken = asked.taken(CLAIM(self._create_client(), **asked.values))
        if taken is None or taken.refused:
            return None
        if taken.leased:
            self.keeper.hold(taken.tag, taken.message, self.qos.tags)
        try:
            message = self.Message(self._readable(taken), channel=self)
        except Empty:
            return None
        if taken.leased:
            self.qos.append(message, taken.tag)
        return message

    def close(self) -> None:
        if not self.closed:
            with suppress(*self.connection_errors):
                self._stop_polling()
        super().close()


def _heard_on(exchange: str) -> str:
    """What a broadcast is signed for; no queue has such a name."""
    return f"all at {exchange}"


class Transport(stock.Transport):
    """The transport that kombu loads."""

    Channel = Channel
    brpop_timeout = 5

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The option says how long a wait lasts; kombu would also sleep that long between two of them.
        self.polling_interval = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """As kombu does, but refresh the bindings less often: kombu would wake the loop every second."""
        super().register_with_event_loop(connection, loop)
        cycle = self.cycle
        cycle._binding_expiry_tref.cancel()
        cycle._binding_expiry_tref = loop.call_repeatedly(BINDING_SECONDS, cycle.maybe_refresh_binding_expiry)

"""What kombu sees: its Redis transport, whose channels take messages under a lease."""

from __future__ import annotations

import hashlib
import sys
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty
from typing import Any
from weakref import WeakValueDictionary

import redis
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.json import dumps
from kombu.utils.objects import cached_property
from redis.exceptions import NoScriptError

from torch_tasks import keys
from torch_tasks.transport import scripts
from torch_tasks.transport.gate import greeting
from torch_tasks.transport.keeper import ANSWER_SECONDS, Keeper, Terms, keeper_for, log
from torch_tasks.transport.wire import delivered, message_id, queue_of

TURNS_BEFORE_LOW = 9
"""After so many messages in a row that overtook one of the lowest priority, one of the lowest is taken."""
_CLAIM_SHA = hashlib.sha1(scripts.CLAIM.encode(), usedforsecurity=False).hexdigest()
CLOSED_SECONDS = 0.2
"""How long a consumer waits before it asks again whether the gate is open."""


class QoS(virtual.QoS):
    """Which deliveries of a channel are not settled yet. They belong to the keeper, and outlive the channel."""

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._messages: WeakValueDictionary[str, Any] = WeakValueDictionary()
        #: The tags that count against the prefetch limit.
        self.tags: set[str] = set()

    def can_consume(self) -> bool:
        """There is room for one more. The answer to a claim is read in any case: it may bring a message."""
        return self.channel.claiming or not self.prefetch_count or self._held < self.prefetch_count

    def can_consume_max_estimate(self) -> int:
        """How many more there is room for."""
        return max(self.prefetch_count - self._held, 0) if self.prefetch_count else 1

    @property
    def _keeper(self) -> Keeper:
        return self.channel.keeper  # type: ignore[no-any-return]

    @property
    def _held(self) -> int:
        return len(self.tags) + len(self._keeper.orphans)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Know the message of a delivery."""
        self._messages[delivery_tag] = message

    def get(self, delivery_tag: str) -> Any:
        """The message of a delivery, while somebody has it."""
        return self._messages[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        """The delivery is done with; told to the broker now, or when it is back."""
        self._keeper.ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """The message goes back to the front of its queue, or away."""
        if requeue:
            self._keeper.requeue(delivery_tag)
        else:
            self._keeper.ack(delivery_tag)

    def restore_unacked(self) -> None:
        """Whatever is not settled goes back, but for what a running task of this process will settle."""
        if self.tags:
            self._keeper.release(list(self.tags), {} if _stopping() else _in_work())

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The channel closes."""
        self._on_collect.cancel()
        self.restore_unacked()


def _celery_state() -> Any:
    return sys.modules.get("celery.worker.state")


def _stopping() -> bool:
    """This process is a Celery worker that was told to stop."""
    state = _celery_state()
    told = (None, False)
    return state is not None and not (state.should_stop in told and state.should_terminate in told)


def _in_work() -> dict[str, Any]:
    """The messages of all requests that Celery's pool has got, by their tags: a lost connection does not end them."""
    state = _celery_state()
    if state is None:
        return {}
    requests = [*_members(state.active_requests), *_members(state.reserved_requests)]
    return {request.message.delivery_tag: request.message for request in requests}


def _members(requests: Iterable[Any]) -> list[Any]:
    while True:
        with suppress(RuntimeError):  # a thread of the pool began a task in this moment
            return list(requests)


class PublishBatch(stock.PublishBatch):
    """Many messages at once; each wakes one of those who wait for it."""

    def flush(self) -> None:
        """Send what is buffered, then ring."""
        if self._buffered:
            rung: dict[str, int] = {}
            for command in list(self.pipeline.command_stack):
                name, target, *_ = command.args if hasattr(command, "args") else command[0]
                if name == "LPUSH":
                    rung[queue_of(target)] = rung.get(queue_of(target), 0) + 1
            for queue, count in rung.items():
                bell = keys.bell(queue)
                self.pipeline.lpush(bell, *[""] * min(count, scripts.BELL_LENGTH))
                self.pipeline.ltrim(bell, 0, scripts.BELL_LENGTH - 1)
                self.pipeline.pexpire(bell, scripts.BELL_MS)
        super().flush()


class Channel(stock.Channel):
    """A channel that claims: asks for a message, and waits at the bells of its queues when there is none.

    The connection it claims on is kombu's own, and never blocks the worker's loop. What it takes belongs to the
    process's keeper.
    """

    QoS = QoS
    _in_poll: Any

    lease_seconds = Terms.lease_seconds
    delivery_limit = Terms.delivery_limit
    recovery_seconds = Terms.recovery_seconds
    from_transport_options = (
        *stock.Channel.from_transport_options,
        "lease_seconds",
        "delivery_limit",
        "recovery_seconds",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._client_of_pool: redis.Redis | None = None
        self._server = ""
        self._unleased: set[str] = set()
        self._claim_sent = False
        self._claim: tuple[str, list[str]] = ("", [])
        self._passed_by = 0
        self._own_bell = keys.bell(f"channel:{uuid.uuid4().hex}")
        super().__init__(*args, **kwargs)
        if self.global_keyprefix or not self.ack_emulation:
            raise ValueError("the leased transport has neither global_keyprefix nor ack_emulation=False")

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────────

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        # With protocol 3, redis-py asks for maintenance notifications on every connection and is refused.
        noted = {"protocol": 2, "redis_connect_func": greeting(self._note_server)}
        return {**super()._connparams(asynchronous=asynchronous), **noted}

    def _note_server(self, identity: str) -> None:
        self._server = identity

    def _create_client(self, asynchronous: bool = False) -> Any:
        """One client for all that is not consuming; kombu would make one for each command."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        client = self._client_of_pool
        if client is None or client.connection_pool is not self.pool:
            client = self._client_of_pool = super()._create_client()
        return client

    @cached_property
    def keeper(self) -> Keeper:
        """Who keeps what this channel takes."""
        parameters = super()._connparams()
        return keeper_for(parameters, Terms(self.lease_seconds, self.delivery_limit, self.recovery_seconds))

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _put_script(self) -> Any:
        return self._create_client().register_script(scripts.PUT)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        """A message joins the end of its queue, and one of those who wait for it wakes up."""
        if kwargs.get("_publish_batch") is not None:
            super()._put(queue, message, **kwargs)
            return
        target = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        with self.conn_or_acquire() as client:
            if queue not in self._expires:
                self._put_script(keys=[target, keys.bell(queue)], args=[dumps(message)], client=client)
                return
            with client.pipeline() as pipe:
                self._put_script(keys=[target, keys.bell(queue)], args=[dumps(message)], client=pipe)
                for step in self.priority_steps:
                    pipe.pexpire(self._q_for_pri(queue, step), self._expires[queue])
                pipe.execute()

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Many messages at once."""
        return PublishBatch(self, max_size)

    # ── consuming ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def claiming(self) -> bool:
        """A claim was sent and its answer not read yet."""
        return bool(self._in_poll) and self._claim_sent

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue, from this moment on."""
        if no_ack:
            self._unleased.add(queue)
        else:
            self._unleased.discard(queue)
            _ = self.keeper
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
        """Look at the queues anew; at the latest when the wait ends if this cannot be told."""
        if self._in_poll and not self._claim_sent:
            with suppress(redis.RedisError), self.conn_or_acquire() as client, client.pipeline() as pipe:
                pipe.lpush(self._own_bell, "").pexpire(self._own_bell, scripts.BELL_MS).execute()

    def _stop_polling(self) -> None:
        """Take nothing any more: what a claim brings at this moment goes back, a wait ends."""
        if not self._in_poll:
            return
        if self._claim_sent:
            with suppress(Empty, *self.connection_errors):
                if self.client.connection.can_read(timeout=ANSWER_SECONDS):
                    self._read_claim(hand_over=False)
        if self._in_poll:
            self.client.connection.disconnect()
            self._in_poll = None

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for a message; kombu calls this when there is room for one and nothing was asked yet."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        steps = list(self.priority_steps)
        if self._passed_by >= TURNS_BEFORE_LOW:
            steps.insert(0, steps.pop())
        lists, kinds = [], ""
        for step in steps:
            for queue in queues:
                lists.append(self._q_for_pri(queue, step))
                kinds += "0" if queue in self._unleased else "2" if step == self.priority_steps[-1] else "1"
        bells = [keys.bell(queue) for queue in queues]
        tag = uuid.uuid4().hex
        names = [keys.LEASES, keys.DELIVERIES, keys.BROKER_STATE, *lists, *bells]
        args = [self._server, int(self.lease_seconds * 1000), tag, len(lists), kinds]
        self._claim = tag, lists
        self._claim_command = [len(names), *names, *args]
        self._claim_sent = True
        self._send("EVALSHA", _CLAIM_SHA, *self._claim_command)

    def _send(self, *command: Any) -> None:
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        """Read what the broker answered to the claim, or that the wait is over."""
        if self._claim_sent:
            return self._read_claim()
        self._answer("BRPOP")
        self._in_poll = None
        self._flush_brpop_reauth()
        raise Empty

    def _answer(self, command: str) -> Any:
        try:
            return self.client.parse_response(self.client.connection, command)
        except self.connection_errors:
            self._in_poll = None
            self.client.connection.disconnect()
            raise
        except NoScriptError:
            raise
        except BaseException:
            self._in_poll = None
            raise

    def _read_claim(self, *, hand_over: bool = True) -> bool:
        sent_at = self._brpop_sent_at
        try:
            answer = self._answer("EVALSHA")
        except NoScriptError:
            self._send("EVAL", scripts.CLAIM, *self._claim_command)
            if hand_over:
                raise Empty from None
            answer = self._answer("EVAL")
        self._in_poll = None
        if len(answer) < 3:
            if hand_over:
                self._wait(closed=bool(answer))
            raise Empty
        number, raw, passed_by = answer
        tag, lists = self._claim
        name = lists[number - 1]
        self._queue_cycle.rotate(queue_of(name))
        self._passed_by = self._passed_by + 1 if passed_by else 0
        late = time.monotonic() - sent_at > self.lease_seconds / 2
        return self._deliver(f"{tag}:{name}", raw.decode(errors="replace"), queue_of(name), keep=hand_over and not late)

    def _wait(self, *, closed: bool) -> None:
        """Wait until a bell rings; while the gate is closed, only for a moment."""
        self._claim_sent = False
        bells = [] if closed else [keys.bell(queue) for queue in self.active_queues]
        self._send("BRPOP", *bells, self._own_bell, CLOSED_SECONDS if closed else self.brpop_timeout or 0)

    def _deliver(self, tag: str, message: str, queue: str, *, keep: bool) -> bool:
        """Hand a message to its consumer; what cannot be handed over goes back, what nobody can read is buried."""
        leased = queue not in self._unleased
        if leased:
            self.keeper.hold(tag, message, self.qos.tags)
            if not keep or queue not in self.connection._callbacks:
                self.keeper.requeue(tag)
                raise Empty
        try:
            payload = delivered(message, tag)
        except ValueError as error:
            log.error("a message in %s cannot be read and goes to the dead letters: %s", queue, error)
            self.keeper.bury(tag, message_id(message) or tag)
            raise Empty from None
        try:
            self.connection._deliver(payload, queue)
        except self.connection_errors as error:
            if leased:  # kombu takes a KeyError for a lost connection; it is rather a message that its reader chokes on
                (self.keeper.fail if isinstance(error, KeyError) else self.keeper.requeue)(tag)
            raise
        except Exception:
            if leased:
                self.keeper.fail(tag)
            raise
        return True

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message at once, if there is one."""
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps]
        tag = uuid.uuid4().hex
        with self.conn_or_acquire() as client:
            answer = self._claim_script(
                keys=[keys.LEASES, keys.DELIVERIES, keys.BROKER_STATE, *lists, keys.bell(queue)],
                args=[
                    self._server,
                    int(self.lease_seconds * 1000),
                    tag,
                    len(lists),
                    ("0" if no_ack else "1") * len(lists),
                ],
                client=client,
            )
        if len(answer) < 3:
            return None
        tag, text = f"{tag}:{lists[answer[0] - 1]}", answer[1].decode(errors="replace")
        if not no_ack:
            self.keeper.hold(tag, text, self.qos.tags)
        message = self.Message(delivered(text, tag), channel=self)
        if not no_ack:
            self.qos.append(message, tag)
        return message

    @cached_property
    def _claim_script(self) -> Any:
        return self._create_client().register_script(scripts.CLAIM)

    def close(self) -> None:
        """Take nothing any more, then close."""
        if not self.closed:
            with suppress(*self.connection.connection_errors):
                self._stop_polling()
        super().close()


class Transport(stock.Transport):
    """kombu's Redis transport with leased deliveries."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # It is how long a wait lasts; kombu would also sleep as long between two of them.
        self.polling_interval = None

"""The leases of an app in this process: a thread for each broker renews them, however busy the others are."""

from __future__ import annotations

import atexit
import logging
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis
from pydantic import SecretStr

from torch_tasks.broker.connection import BrokerClient
from torch_tasks.broker.reconciler import greeting
from torch_tasks.broker.refused import refused_name
from torch_tasks.errors import BrokerAway, WrongType
from torch_tasks.model import metrics
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.system.loops import RETRY_SECONDS, Loop
from torch_tasks.system.tally import tally
from torch_tasks.transport.callbacks import Callbacks, LeaseListeners
from torch_tasks.transport.claiming import IntakePause
from torch_tasks.transport.deliveries import Deliveries, GateClosed, is_parked, list_of_tag, queue_of
from torch_tasks.transport.envelope import BROADCAST_SECONDS, message_id, readdressed
from torch_tasks.transport.gate import Gate
from torch_tasks.transport.held import HeldDeliveries

log = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0
"""A broker that takes longer than this counts as away."""
SWEEP_SECONDS = 5.0
SWEEP_LEASES = 5 / 8
"""The longest time between two sweeps, in leases: a whole one would look as if the broker had been away."""
BETWEEN_SWEEPS_SECONDS = 0.25
GATE_SECONDS = 0.2
_HEARD = 10_000
"""So many commands are kept before those are forgotten whose signatures have expired."""


@dataclass(frozen=True)
class LeaseTerms:
    """The terms on which messages are held."""

    lease_seconds: float = 8.0
    delivery_limit: int = 10
    recovery_seconds: float = 3.0

    @property
    def lease_ms(self) -> int:
        return int(self.lease_seconds * 1000)


class Settlement(NamedTuple):
    """The end of a delivery, and the call that settles it on the broker."""

    tag: str
    message: str
    settle: Callable[[], bool]


class BrokerChanged(Exception):
    """No fault: another server process answers than the one that knows what this process holds."""


class LeaseKeeper:
    """Keeps the deliveries that this process holds on one broker.

    It renews their leases; settles them on the broker, in order, again and again while it is away; restores what dead
    processes left; and after the broker's return puts back what this process holds, before any process takes a
    message. Nothing here raises because the broker is away.
    """

    def __init__(self, parameters: Mapping[str, Any], terms: LeaseTerms, listeners: LeaseListeners) -> None:
        """``parameters`` are those of a redis-py connection pool."""
        self._listeners = listeners
        self.terms = terms
        self._client = _client(parameters, self._note_server)
        self._deliveries = Deliveries(self._client)
        self._gate = Gate(self._client)
        self._holdings = HeldDeliveries()
        self._backlog: deque[Settlement] = deque()
        self._settling = threading.Lock()
        self._callbacks = Callbacks()
        #: The server process that answered last, and the one that knows everything we hold.
        self._answering: str | None = None
        self._known: str | None = None
        self._epoch = 0
        #: The opening of the gate that we have seen.
        self._opening = ""
        #: There while we wait at the gate; set when this process has put back all that it knows.
        self._all_put_back: threading.Event | None = None
        self._away = False
        self._renew_at = self._sweep_at = self._sleeps_until = 0.0
        self._loop = Loop("torch-keeper", self._round, longest_retry_seconds=RETRY_SECONDS)
        self._process = os.getpid()
        self._loop.start()

    # ── what this process holds ──────────────────────────────────────────────────────────────────────────────────

    def hold(self, tag: str, message: str, group: set[str]) -> None:
        """Keep a delivery that was just claimed; it counts among its ``group`` until it is settled."""
        self._holdings.add(tag, message, group)
        soon = time.monotonic() + self.terms.lease_seconds / 4
        if self._sleeps_until > soon:
            self._renew_at = soon
            self._loop.wake()

    def held(self) -> frozenset[str]:
        """The tags of the deliveries that this process has."""
        return frozenset(self._holdings.messages())

    @property
    def orphans(self) -> set[str]:
        """Tags that outlived their channel; they count against the next channel's limit."""
        return self._holdings.orphans

    def message(self, tag: str) -> str | None:
        return self._holdings.message(tag)

    # The ends of a delivery: see :class:`Deliveries`. Each is settled on the broker at once, or when it is back. The
    # answer is False, and nothing is touched, if this process does not have the delivery any more.

    def ack(self, tag: str) -> bool:
        return self._settle(tag, lambda: self._deliveries.settle(tag))

    def requeue(self, tag: str) -> bool:
        return self._settle(tag, lambda: self._deliveries.requeue(tag))

    def fail(self, tag: str) -> bool:
        """Put the message back as lost once more, or bury it if it was lost too often."""
        return self._settle(tag, lambda: self._restore_lost(tag, only_ended=False))

    def move(self, tag: str, queue: str, step: int) -> bool:
        message = readdressed(self._holdings.message(tag) or "", queue)
        return self._settle(tag, lambda: self._deliveries.move(tag, queue, step, message))

    def park(self, tag: str, queue: str, step: int, ms: int, message: str | None = None) -> bool:
        until = time.monotonic() + ms / 1000

        def settle() -> bool:
            left_ms = max(int((until - time.monotonic()) * 1000), 0)
            parked = self._deliveries.park(tag, queue, step, left_ms, message)
            self.sweep_by(time.monotonic() + (left_ms + 1) / 1000)  # the broker has begun to count by now
            return parked

        return self._settle(tag, settle)

    def bury(self, tag: str, message_id: str) -> bool:
        return self._settle(tag, lambda: self._deliveries.bury(tag, message_id))

    def set_aside(self, tag: str, task_id: str) -> bool:
        return self._settle(tag, lambda: self._deliveries.set_delivery_aside(tag, task_id))

    def refuse(self, tag: str, why: str) -> bool:
        """Put a message that cannot be read to the dead letters, where a person finds it with the reason."""
        log.error("a message in %s is refused as %s: %s", queue_of(list_of_tag(tag)), refused_name(tag), why)
        return self._settle(tag, lambda: self._deliveries.refuse(tag, why))

    def release(self, tags: Set[str], settlers: Mapping[str, object]) -> None:
        """Put these back, for their channel is gone; one that has a settler only once that is gone as well."""
        for tag in tags & settlers.keys():
            self._holdings.orphan(tag, settlers[tag])
        alone = [tag for tag in self._holdings.messages() if tag in tags and tag not in settlers]
        for tag in reversed(alone):  # each goes to the front
            self.requeue(tag)

    def sweep_by(self, moment: float = 0.0) -> None:
        """Sweep at this moment at the latest: there may be a delivery to restore, or the gate to be opened."""
        self._sweep_at = min(self._sweep_at, moment)
        self._loop.wake()

    def put_back_held(self) -> None:
        """Put back all that this process holds, because it ends."""
        if os.getpid() == self._process:
            with suppress(BrokerAway, BrokerChanged, GateClosed, WrongType):
                self._settle_backlog()
                self.release(self.held(), {})

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, tag: str, settle: Callable[[], bool]) -> bool:
        if os.getpid() != self._process:  # a forked child has a copy, but holds nothing
            return False
        message = self._holdings.remove(tag)
        if message is None:
            return False
        if not self._backlog and self._known in (None, self._answering):
            try:
                return settle() or self._note_lost(tag)
            except WrongType as error:
                log.error("delivery %s is settled later: %s", tag, error)
            except (BrokerAway, BrokerChanged, GateClosed) as error:
                log.debug("delivery %s is settled later: %r", tag, error)
        self._backlog.append(Settlement(tag, message, settle))
        self._loop.wake()
        return True

    def _note_lost(self, tag: str) -> bool:
        """Note that another process has the delivery by now; raises if it is the broker that forgot it."""
        self._check_same_broker()
        gate = self._gate.state()
        if not gate.open or gate.opening != self._opening:
            raise GateClosed
        log.warning("delivery %s had been lost when it was settled", tag)
        return False

    def _settle_backlog(self) -> None:
        """Settle on the broker, in order, what could not be settled before."""
        with self._settling:
            for _ in range(len(self._backlog)):
                first = self._backlog[0]
                try:
                    if not first.settle():
                        self._settle_unknown(first)
                except WrongType as error:  # tried again at the next turn; the others do not wait for it
                    log.debug("delivery %s is settled later: %s", first.tag, error)
                    self._backlog.rotate(-1)
                    continue
                except redis.ResponseError:
                    log.exception("the broker refuses to settle delivery %s", first.tag)
                self._backlog.popleft()

    def _settle_unknown(self, settlement: Settlement) -> None:
        """Settle what the broker does not know: if it was restarted, only after the delivery is reinstated."""
        if self._all_put_back is None:
            self._note_lost(settlement.tag)
        else:
            self._deliveries.reinstate({settlement.tag: settlement.message}, self.terms.lease_ms)
            settlement.settle()

    def _restore_lost(self, tag: str, *, only_ended: bool) -> bool:
        """Put a message that was lost with its holder back to its queue, or to the dead letters."""
        limit = self.terms.delivery_limit
        outcome = self._deliveries.put_back(tag, only_ended=only_ended, limit=limit)
        if outcome == "back":
            log.info("%s", _back_in_words(tag))
        if outcome != "poison":
            return outcome == "back"
        message = self._deliveries.message(tag) or ""
        name = message_id(message) or tag
        if not self._deliveries.bury(tag, name, only_ended=only_ended):
            return False
        log.error("message %s was lost with its holder %d times and went to the dead letters", name, limit)
        self._callbacks.run(self._listeners.on_buried, name, message)
        return True

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _round(self) -> float:
        try:
            pause = self._turn_or_put_back()
        except BrokerAway as error:
            if not self._away:
                log.warning("the broker is away; this process keeps its %d deliveries: %s", len(self.held()), error)
            self._away, pause = True, RETRY_SECONDS
        self._sleeps_until = time.monotonic() + pause
        return pause

    def _turn_or_put_back(self) -> float:
        try:
            pause = self._turn()
        except (BrokerChanged, GateClosed):
            self._put_back_all()
            pause = 0.0
        if self._away:
            log.warning("the broker is back")
        self._away = False
        return pause

    def _turn(self) -> float:
        """Do what is due; returns the seconds until the next turn."""
        if self._known is None:
            self._client.ping()
        self._check_same_broker()
        self._settle_backlog()
        if self._all_put_back is not None and not self._pass_gate(self._all_put_back):
            return GATE_SECONDS
        if time.monotonic() >= self._renew_at:
            self._renew()
            self._renew_at = time.monotonic() + self.terms.lease_seconds / 4
        if time.monotonic() >= self._sweep_at:
            self._sweep_and_plan()
        due = min(self._renew_at, self._sweep_at) if self.held() else self._sweep_at
        return max(due - time.monotonic(), 0.0)

    def _renew(self) -> None:
        for tag in self._holdings.orphans_without_settler():
            self.requeue(tag)
        tags = list(self.held())
        lost = self._deliveries.renew(tags, self.terms.lease_ms, self._opening)
        self._check_same_broker()
        if tags:
            tally().count(metrics.LEASE_RENEWALS, len(tags))
        for tag in lost:
            if message := self._holdings.lose(tag):
                log.warning("delivery %s is lost: its lease ended before it was renewed", tag)
                tally().count(metrics.LEASES_LOST)
                self._callbacks.run(self._listeners.on_lost, tag, message)

    def _sweep_and_plan(self) -> None:
        pause, self._sweep_at = 0.0, math.inf  # parking a message meanwhile makes it less
        try:
            pause = self._sweep()
        finally:
            self._sweep_at = min(self._sweep_at, time.monotonic() + pause)

    def _sweep(self) -> float:
        """Restore what dead processes left; returns the seconds until that may be needed again."""
        sweep = self._deliveries.sweep(self.terms.lease_ms, self._opening)
        self._check_same_broker()
        for tag in reversed(sweep.ended):  # each goes to the front: the one that ended first comes last
            self._restore_lost(tag, only_ended=True)
        if sweep.ended:
            return BETWEEN_SWEEPS_SECONDS
        longest = min(SWEEP_SECONDS, self.terms.lease_seconds * SWEEP_LEASES)
        if sweep.next_ms is None:
            return longest
        jitter = random.uniform(0.01, 0.1)  # noqa: S311 - so that not all processes come at once
        return min(max(sweep.next_ms / 1000, BETWEEN_SWEEPS_SECONDS) + jitter, longest)

    # ── the broker's return ──────────────────────────────────────────────────────────────────────────────────────

    def _note_server(self, identity: str) -> None:
        self._answering = identity

    def _check_same_broker(self) -> None:
        if self._answering != self._known:
            raise BrokerChanged

    def _put_back_all(self) -> None:
        """Put back what we hold, which the broker that answers does not know; then wait at its gate."""
        identity = str(self._answering)
        if self._known is None and self._enter_gate(identity, busy=False):
            self._known = identity  # we are new here, and the broker was not restarted
            return
        unsettled = {settlement.tag: settlement.message for settlement in list(self._backlog)}
        messages = unsettled | self._holdings.messages()
        self._deliveries.reinstate(messages, self.terms.lease_ms)
        log.warning("the broker is new or was restarted: put back %d deliveries, its gate is closed", len(messages))
        self._known = identity
        self._all_put_back = self._callbacks.run_until_done(self._listeners.on_return, lambda: self._known == identity)

    def _pass_gate(self, all_put_back: threading.Event) -> bool:
        if not self._enter_gate(str(self._known), busy=not all_put_back.is_set()):
            return False
        self._check_same_broker()
        log.warning("the broker's gate is open")
        self._all_put_back = None
        self._renew_at = self._sweep_at = 0.0
        return True

    def _enter_gate(self, identity: str, *, busy: bool) -> bool:
        entry = self._gate.enter(identity, int(self.terms.recovery_seconds * 1000), self._epoch, busy=busy)
        self._epoch, self._opening = entry.epoch, entry.opening
        return entry.open


def _client(parameters: Mapping[str, Any], note_server: Callable[[str], None]) -> BrokerClient:
    options = {
        **parameters,
        "decode_responses": True,
        "encoding_errors": "replace",
        "protocol": 2,
        "redis_connect_func": greeting(note_server),
        "health_check_interval": 0,
        "socket_timeout": ANSWER_SECONDS,
    }
    if "path" not in parameters:
        options["socket_connect_timeout"] = ANSWER_SECONDS
    where = parameters.get("path")
    url = f"unix://{where}" if where else f"redis://{parameters['host']}:{parameters['port']}/{parameters.get('db', 0)}"
    address = BrokerAddress(url=SecretStr(url), source="the Celery app")
    return BrokerClient(redis.ConnectionPool(**options), address)


class HeardCommands:
    """The commands that this process has heard lately: one that somebody sends a second time is not heard again."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def is_new(self, signature: str) -> bool:
        now = time.monotonic()
        with self._lock:
            if len(self._until) > _HEARD:
                self._until = {one: until for one, until in self._until.items() if until > now}
            if signature in self._until:
                return False
            self._until[signature] = now + BROADCAST_SECONDS
            return True


class Leases:
    """All leases that one Celery app has in this process: a keeper for each broker it takes messages from."""

    def __init__(self) -> None:
        self.listeners = LeaseListeners()
        #: Stops all channels of the app from taking messages.
        self.intake = IntakePause()
        self.heard = HeardCommands()
        self._keepers: dict[tuple[object, ...], LeaseKeeper] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget_keepers)
        atexit.register(self._put_back_held)

    def keeper_for(self, parameters: Mapping[str, Any], terms: LeaseTerms) -> LeaseKeeper:
        """The keeper for the broker at these connection parameters, made when it is first asked for."""
        where = tuple(parameters.get(name) for name in ("host", "port", "path", "db", "username"))
        with self._lock:
            if where not in self._keepers:
                self._keepers[where] = LeaseKeeper(parameters, terms, self.listeners)
            return self._keepers[where]

    def keepers(self) -> list[LeaseKeeper]:
        return list(self._keepers.values())

    def keeper_of(self, tag: str) -> LeaseKeeper | None:
        return next((keeper for keeper in self.keepers() if keeper.message(tag) is not None), None)

    def _forget_keepers(self) -> None:
        """A forked child holds nothing."""
        self._keepers.clear()
        self._lock = threading.Lock()

    def _put_back_held(self) -> None:
        for keeper in self.keepers():
            keeper.put_back_held()


def _back_in_words(tag: str) -> str:
    """Why a delivery is in its queue again: a pause is over, as before a retry, or its holder was lost."""
    queue = queue_of(list_of_tag(tag))
    if is_parked(tag):
        return f"what was to wait for a while is in {queue} again"
    return f"delivery {tag.partition(':')[0]} was lost with its holder and is in {queue} again"
